// SPDX-License-Identifier: MIT
// What runs a block, for fibers.cpp, which decides who runs, and stacks.cpp, which changes stacks.
#pragma once

#include <exception>
#include <functional>
#include <random>
#include <vector>

#include "fibers.h"

// Hidden: several libraries with a runner of their own may be in one process.
namespace cuda_emulator __attribute__((visibility("hidden"))) {

  constexpr int kWarp = 32, kLargestBlock = 1024;

  enum class State { kReady, kAtBarrier, kAtSome, kUntil, kInWarp, kDone };

  struct Fiber {
    void* stack_pointer = nullptr;
    State state = State::kDone;
    Index index{};
    const char* site = nullptr;   // of the barrier it waits at
    uint32_t mask = 0;            // of the exchange it waits in
    int turn = 0;                 // which of two slots its next exchange uses
    int number = 0, threads = 0;  // of the barrier for some of the block
    Condition condition{};
    void* sanitizer = nullptr;
  };

  struct Runner {
    std::vector<Fiber> fibers = std::vector<Fiber>(kLargestBlock);
    char* stacks = nullptr;
    void* stack_pointer = nullptr;  // of the scheduler
    int current = -1, threads = 0;
    Index grid{}, block_size{}, block{};
    const std::function<void()>* body = nullptr;
    std::exception_ptr thrown;
    std::vector<std::function<void()>> beside;
    uint64_t runs = 0;
    // A lane may publish for the next exchange before all have read the last: two slots, in turn.
    unsigned char slots[2][kLargestBlock][kLargestExchange];
    Schedule schedule = Schedule::kForward;
    std::mt19937 random;
    // Of the scheduler's own stack, for the sanitizer.
    void* sanitizer = nullptr;
    const void* bottom = nullptr;
    size_t size = 0;
  };
  extern Runner runner;

  inline Fiber& current() { return runner.fibers[static_cast<size_t>(runner.current)]; }

  // Makes a thread ready to begin.
  void prepare(int thread);
  // Of the scheduler: runs a thread until it waits or ends. Of a thread: goes back to the
  // scheduler.
  void enter(int thread);
  void leave();
  void make_stacks();

}  // namespace cuda_emulator
