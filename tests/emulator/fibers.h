// SPDX-License-Identifier: MIT
// The threads of one CUDA block as fibers of one CPU thread. Each runs until it waits for others,
// so that a run is a function of the schedule alone, and a kernel that is right in one schedule and
// wrong in another has a race.
#pragma once

#include <cstdint>
#include <functional>
#include <stdexcept>
#include <string>

namespace cuda_emulator {

struct Index {
  unsigned x, y, z;
};

struct Error : std::runtime_error {
  using std::runtime_error::runtime_error;
};

enum class Schedule { kForward, kReverse, kRandom };

// In which order the threads that can run are run. Random: shuffled anew each round, and half of
// the warps wait, by the seed.
void set_schedule(Schedule schedule, unsigned seed);

// Runs every block of a grid, one after the other.
//
// body: the kernel with its arguments bound, called once per thread. Throws Error where threads
// wait at different barriers, or for threads that never come, and passes on what a kernel throws.
void run_grid(Index grid, Index block, const std::function<void()>& body);

// What the running thread sees.
const Index& thread_index();
const Index& block_index();
const Index& block_size();
const Index& grid_size();
int lane();

// Waits for all threads of the block that have not returned. site: of the call, "file:line".
void wait_for_block(const char* site);

// Waits for `threads` of the block that give the same number.
void wait_for_some(int number, int threads);

// Waits until a condition holds, which other threads or asynchronous work bring about.
struct Condition {
  bool (*holds)(const void* on, unsigned value);
  const void* on;
  unsigned value;
  const char* what;  // is waited for
};
void wait_until(const Condition& condition);

// Work that goes on beside the threads, as copies of an accelerator. When it is done is not known:
// here as late as the threads allow, in the random schedule also sooner and in any order.
void beside_threads(std::function<void()> work);

// Of the thread in its block, x first; and a number that no other block's run has.
int flat_thread();
uint64_t run_number();

// Publishes `bytes` of the calling lane, waits for the lanes of the mask, and returns what `lane`
// of the same warp published.
constexpr int kLargestExchange = 8;
void exchange(uint32_t mask, const void* mine, void* theirs, int bytes, int lane);

}  // namespace cuda_emulator
