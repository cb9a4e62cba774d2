// SPDX-License-Identifier: MIT
#include "fibers.h"

#include <dlfcn.h>
#include <link.h>

#include <algorithm>
#include <cstring>
#include <numeric>
#include <utility>
#include <vector>

#include "runner.h"

namespace cuda_emulator {
namespace {

std::string describe(int thread) {
  const Index& t = runner.fibers[static_cast<size_t>(thread)].index;
  const auto text = [](const Index& i) {
    return "(" + std::to_string(i.x) + ", " + std::to_string(i.y) + ", " + std::to_string(i.z) +
           ")";
  };
  return "block " + text(runner.block) + " thread " + text(t);
}

// Lets every warp go on whose lanes have all arrived.
bool release_warps() {
  bool released = false;
  for (int first = 0; first < runner.threads; first += kWarp) {
    uint32_t waited_for = 0, arrived = 0, alive = 0;
    const int lanes = std::min(kWarp, runner.threads - first);
    for (int lane = 0; lane < lanes; ++lane) {
      const Fiber& fiber = runner.fibers[static_cast<size_t>(first + lane)];
      if (fiber.state != State::kDone) alive |= 1u << lane;
      if (fiber.state != State::kInWarp) continue;
      arrived |= 1u << lane;
      waited_for |= fiber.mask;
    }
    if (!arrived || (waited_for & alive & ~arrived)) continue;
    for (int lane = 0; lane < lanes; ++lane)
      if (arrived >> lane & 1)
        runner.fibers[static_cast<size_t>(first + lane)].state = State::kReady;
    released = true;
  }
  return released;
}

// Lets the block go on if all of it has arrived at one barrier.
bool release_block() {
  int alive = 0, waiting = 0, first = -1;
  for (int i = 0; i < runner.threads; ++i) {
    const Fiber& fiber = runner.fibers[static_cast<size_t>(i)];
    alive += fiber.state != State::kDone;
    if (fiber.state != State::kAtBarrier) continue;
    ++waiting;
    if (first < 0) first = i;
  }
  if (!waiting || waiting != alive) return false;
  const char* site = runner.fibers[static_cast<size_t>(first)].site;
  for (int i = 0; i < runner.threads; ++i) {
    Fiber& fiber = runner.fibers[static_cast<size_t>(i)];
    if (fiber.state != State::kAtBarrier) continue;
    if (std::strcmp(fiber.site, site) != 0)
      throw Error("divergent __syncthreads: " + describe(i) + " waits at " + fiber.site + ", " +
                  describe(first) + " at " + site);
    fiber.state = State::kReady;
  }
  return true;
}

// Lets the threads go on of which as many have arrived as they said.
bool release_some() {
  bool released = false;
  for (int i = 0; i < runner.threads; ++i) {
    const Fiber& first = runner.fibers[static_cast<size_t>(i)];
    if (first.state != State::kAtSome) continue;
    const auto with_first = [&](const Fiber& fiber) {
      return fiber.state == State::kAtSome && fiber.number == first.number;
    };
    const auto end = runner.fibers.begin() + runner.threads;
    const auto arrived = std::count_if(runner.fibers.begin(), end, with_first);
    if (arrived > first.threads) throw Error(describe(i) + " waits for fewer threads than come");
    if (arrived < first.threads) continue;
    const int number = first.number;
    for (auto fiber = runner.fibers.begin(); fiber != end; ++fiber)
      if (fiber->state == State::kAtSome && fiber->number == number) fiber->state = State::kReady;
    released = true;
  }
  return released;
}

// Lets the threads go on whose condition holds by now.
bool release_conditions() {
  bool released = false;
  for (int i = 0; i < runner.threads; ++i) {
    Fiber& fiber = runner.fibers[static_cast<size_t>(i)];
    if (fiber.state != State::kUntil) continue;
    if (!fiber.condition.holds(fiber.condition.on, fiber.condition.value)) continue;
    fiber.state = State::kReady;
    released = true;
  }
  return released;
}

// Does a piece of the work beside the threads, if there is any.
bool work_beside() {
  if (runner.beside.empty()) return false;
  size_t which = 0;
  if (runner.schedule == Schedule::kRandom) which = runner.random() % runner.beside.size();
  const auto work = std::move(runner.beside[which]);
  runner.beside.erase(runner.beside.begin() + static_cast<std::ptrdiff_t>(which));
  work();
  return true;
}

[[noreturn]] void report_deadlock() {
  std::string text = "deadlock:";
  for (int i = 0; i < runner.threads; ++i) {
    const Fiber& fiber = runner.fibers[static_cast<size_t>(i)];
    if (fiber.state == State::kUntil)
      throw Error(text + " " + describe(i) + " waits for " + fiber.condition.what +
                  ", which never comes");
    if (fiber.state == State::kAtSome)
      throw Error(text + " " + describe(i) + " waits at barrier " + std::to_string(fiber.number) +
                  " for threads that never come");
  }
  for (int i = 0; i < runner.threads; ++i) {
    const Fiber& fiber = runner.fibers[static_cast<size_t>(i)];
    if (fiber.state == State::kAtBarrier)
      throw Error(text + " " + describe(i) + " waits at " + fiber.site + " for threads in a warp " +
                  "operation whose lanes never come");
  }
  throw Error(text + " lanes wait in a warp operation for others that never come");
}

// Static shared memory is declared thread_local, so that the linker collects all of it, and nothing
// else, in one place that can be found. A block of threads is to find it full of NaN.
thread_local char in_the_block;

void poison_shared() {
  struct Search {
    const void* library;
    void* memory;
    size_t size;
  };
  static const Search found = [] {
    asm volatile("" : : "r"(&in_the_block));  // it is made when first asked for
    Dl_info self{};
    dladdr(reinterpret_cast<void*>(&poison_shared), &self);
    Search search{self.dli_fbase, nullptr, 0};
    const auto look = [](dl_phdr_info* info, size_t, void* data) {
      auto& wanted = *static_cast<Search*>(data);
      if (reinterpret_cast<void*>(info->dlpi_addr) != wanted.library) return 0;
      for (int i = 0; i < info->dlpi_phnum; ++i)
        if (info->dlpi_phdr[i].p_type == PT_TLS) wanted.size = info->dlpi_phdr[i].p_memsz;
      wanted.memory = info->dlpi_tls_data;
      return 1;
    };
    dl_iterate_phdr(look, &search);
    if (!search.memory) throw Error("the emulator does not find its shared memory");
    return search;
  }();
  std::memset(found.memory, 0xff, found.size);
}

void run_block() {
  for (int i = 0; i < runner.threads; ++i) prepare(i);
  runner.beside.clear();
  ++runner.runs;
  std::vector<int> order(static_cast<size_t>(runner.threads));
  std::iota(order.begin(), order.end(), 0);
  if (runner.schedule == Schedule::kReverse) std::reverse(order.begin(), order.end());
  for (;;) {
    if (runner.schedule == Schedule::kRandom)
      std::shuffle(order.begin(), order.end(), runner.random);
    // Random: half of the warps stand still, so that others get ahead by more than one step.
    const uint32_t still = runner.schedule == Schedule::kRandom ? runner.random() : 0;
    bool ran = false, alive = false, stood = false;
    for (const int i : order) {
      const State state = runner.fibers[static_cast<size_t>(i)].state;
      alive |= state != State::kDone;
      if (state != State::kReady) continue;
      if (still >> i / kWarp & 1) {
        stood = true;
        continue;
      }
      enter(i);
      if (runner.thrown) std::rethrow_exception(std::exchange(runner.thrown, nullptr));
      ran = true;
    }
    if (!alive) break;
    ran |= release_warps();
    ran |= release_block();
    ran |= release_some();
    if (still & 1) work_beside();
    ran |= release_conditions();
    if (!ran && !stood && !work_beside() && !release_conditions()) report_deadlock();
  }
  if (!runner.beside.empty()) throw Error("a block ended while copies of it were under way");
}

}  // namespace

void set_schedule(Schedule schedule, unsigned seed) {
  runner.schedule = schedule;
  runner.random.seed(seed);
}

void run_grid(Index grid, Index block, const std::function<void()>& body) {
  const uint64_t threads = uint64_t{block.x} * block.y * block.z;
  if (threads < 1 || threads > kLargestBlock || uint64_t{grid.x} * grid.y * grid.z == 0 ||
      grid.x >= 1u << 31 || grid.y > 65535 || grid.z > 65535)
    throw Error("a launch that no GPU takes: " + std::to_string(threads) + " threads, grid (" +
                std::to_string(grid.x) + ", " + std::to_string(grid.y) + ", " +
                std::to_string(grid.z) + ")");
  make_stacks();
  runner.threads = static_cast<int>(threads);
  runner.grid = grid;
  runner.block_size = block;
  runner.body = &body;
  uint64_t blocks = 0;
  for (unsigned z = 0; z < grid.z; ++z)
    for (unsigned y = 0; y < grid.y; ++y)
      for (unsigned x = 0; x < grid.x; ++x) {
        runner.block = {x, y, z};
        // Not before each of many: that takes longer than the block itself.
        if (blocks < 4 || blocks % 256 == 0) poison_shared();
        ++blocks;
        run_block();
      }
}

const Index& thread_index() { return current().index; }
const Index& block_index() { return runner.block; }
const Index& block_size() { return runner.block_size; }
const Index& grid_size() { return runner.grid; }
int lane() { return runner.current % kWarp; }

void wait_for_block(const char* site) {
  Fiber& fiber = current();
  fiber.state = State::kAtBarrier;
  fiber.site = site;
  leave();
}

void wait_for_some(int number, int threads) {
  Fiber& fiber = current();
  fiber.state = State::kAtSome;
  fiber.number = number;
  fiber.threads = threads;
  leave();
}

void wait_until(const Condition& condition) {
  Fiber& fiber = current();
  if (condition.holds(condition.on, condition.value) && runner.schedule != Schedule::kRandom)
    return;
  fiber.state = State::kUntil;
  fiber.condition = condition;
  leave();
}

void beside_threads(std::function<void()> work) { runner.beside.push_back(std::move(work)); }

int flat_thread() { return runner.current; }
uint64_t run_number() { return runner.runs; }

void exchange(uint32_t mask, const void* mine, void* theirs, int bytes, int lane) {
  Fiber& fiber = current();
  const int self = runner.current % kWarp, first = runner.current - self;
  if (!(mask >> self & 1)) throw Error(describe(runner.current) + " is not in its own mask");
  if (!(mask >> lane & 1))
    throw Error(describe(runner.current) + " reads lane " + std::to_string(lane) +
                ", which is not in the mask");
  const int turn = fiber.turn ^= 1;
  std::memcpy(runner.slots[turn][runner.current], mine, static_cast<size_t>(bytes));
  fiber.state = State::kInWarp;
  fiber.mask = mask;
  leave();
  std::memcpy(theirs, runner.slots[turn][first + lane], static_cast<size_t>(bytes));
}

}  // namespace cuda_emulator
