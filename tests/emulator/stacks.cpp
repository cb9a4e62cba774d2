// SPDX-License-Identifier: MIT
#include <sys/mman.h>

#include <cstdint>
#include <exception>

#include "runner.h"

#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif

#if !defined(__x86_64__)
#error "the fibers of the emulator switch stacks in x86-64 assembly"
#endif

// Saves the registers that a function must keep, changes stacks, and restores those of the other.
extern "C" void cuda_emulator_switch(void** save, void* load);
asm(R"(
.text
.globl cuda_emulator_switch
.hidden cuda_emulator_switch
.type cuda_emulator_switch, @function
cuda_emulator_switch:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
.size cuda_emulator_switch, .-cuda_emulator_switch
)");

namespace cuda_emulator {
namespace {

constexpr size_t kStack = size_t{128} << 10, kGuard = 4096;

char* stack_of(int thread) {
  return runner.stacks + static_cast<size_t>(thread) * (kStack + kGuard) + kGuard;
}

[[noreturn]] void run_thread() {
#ifdef __SANITIZE_ADDRESS__
  __sanitizer_finish_switch_fiber(nullptr, &runner.bottom, &runner.size);
#endif
  try {
    (*runner.body)();
  } catch (...) {
    if (!runner.thrown) runner.thrown = std::current_exception();
  }
  current().state = State::kDone;
  leave();
  std::terminate();  // nobody enters a thread that is done
}

}  // namespace

Runner runner;

void enter(int thread) {
  runner.current = thread;
#ifdef __SANITIZE_ADDRESS__
  __sanitizer_start_switch_fiber(&runner.sanitizer, stack_of(thread), kStack);
#endif
  cuda_emulator_switch(&runner.stack_pointer, current().stack_pointer);
#ifdef __SANITIZE_ADDRESS__
  __sanitizer_finish_switch_fiber(runner.sanitizer, nullptr, nullptr);
#endif
  runner.current = -1;
}

void leave() {
  Fiber& fiber = current();
#ifdef __SANITIZE_ADDRESS__
  const bool for_ever = fiber.state == State::kDone;
  __sanitizer_start_switch_fiber(for_ever ? nullptr : &fiber.sanitizer, runner.bottom, runner.size);
#endif
  cuda_emulator_switch(&fiber.stack_pointer, runner.stack_pointer);
#ifdef __SANITIZE_ADDRESS__
  __sanitizer_finish_switch_fiber(fiber.sanitizer, nullptr, nullptr);
#endif
}

// Stacks with a page between them that nobody may touch: an overflow crashes where it happens.
void make_stacks() {
  if (runner.stacks) return;
  void* memory = mmap(nullptr, kLargestBlock * (kStack + kGuard), PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (memory == MAP_FAILED) throw Error("no memory for the stacks of a block");
  runner.stacks = static_cast<char*>(memory);
  for (int i = 0; i < kLargestBlock; ++i) mprotect(stack_of(i) - kGuard, kGuard, PROT_NONE);
}

void prepare(int thread) {
  char* top = stack_of(thread) + kStack;
#ifdef __SANITIZE_ADDRESS__
  __asan_unpoison_memory_region(stack_of(thread), kStack);
#endif
  void** pointer = reinterpret_cast<void**>(top - 16);
  *--pointer = nullptr;  // where run_thread would return to: keeps the alignment a call leaves
  *--pointer = reinterpret_cast<void*>(&run_thread);
  for (int i = 0; i < 6; ++i) *--pointer = nullptr;  // the registers that a switch pops
  Fiber fiber;
  fiber.stack_pointer = pointer;
  fiber.state = State::kReady;
  const auto i = static_cast<unsigned>(thread);
  const Index& size = runner.block_size;
  fiber.index = {i % size.x, i / size.x % size.y, i / (size.x * size.y)};
  runner.fibers[static_cast<size_t>(thread)] = fiber;
}

}  // namespace cuda_emulator
