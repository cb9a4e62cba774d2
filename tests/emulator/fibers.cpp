// SPDX-License-Identifier: MIT
#include "fibers.h"

#include <dlfcn.h>
#include <link.h>
#include <sys/mman.h>

#include <algorithm>
#include <cstring>
#include <exception>
#include <numeric>
#include <random>
#include <utility>
#include <vector>

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

constexpr int kWarp = 32, kLargestBlock = 1024;
constexpr size_t kStack = size_t{128} << 10, kGuard = 4096;

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
Runner runner;

Fiber& current() { return runner.fibers[static_cast<size_t>(runner.current)]; }

char* stack_of(int thread) {
  return runner.stacks + static_cast<size_t>(thread) * (kStack + kGuard) + kGuard;
}

std::string describe(int thread) {
  const Index& t = runner.fibers[static_cast<size_t>(thread)].index;
  const auto text = [](const Index& i) {
    return "(" + std::to_string(i.x) + ", " + std::to_string(i.y) + ", " + std::to_string(i.z) +
           ")";
  };
  return "block " + text(runner.block) + " thread " + text(t);
}

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
