// SPDX-License-Identifier: MIT
#include "hopper_emulator.h"

#include <array>
#include <memory>
#include <utility>
#include <vector>

namespace cuda_emulator {
namespace {

// A tensor map, in the 128 bytes whose meaning the driver keeps to itself.
struct Map {
  const unsigned char* tensor;
  uint64_t sizes[3], strides[3];
  uint32_t box[3];
  bool swizzle;
};
static_assert(sizeof(Map) <= sizeof(CUtensorMap));

struct Barrier {
  uint16_t expected;
  uint16_t pending : 15, phase : 1;
  int32_t bytes;  // that are announced and not there yet
};
static_assert(sizeof(Barrier) == sizeof(uint64_t));

struct Copy {
  void* to;
  const void* from;
};

struct Thread {
  uint64_t run = 0;
  std::vector<std::function<void()>> open;  // products that are not committed yet
  std::vector<std::vector<std::function<void()>>> groups;
  std::vector<Copy> copies;
  bool begun = false;     // products may follow
  bool published = true;  // what the thread has written for products
};

Thread& self() {
  static std::vector<Thread> threads(1024);
  Thread& thread = threads[static_cast<size_t>(flat_thread())];
  if (thread.run != run_number()) {
    thread = Thread();
    thread.run = run_number();
  }
  return thread;
}

Barrier& barrier_at(const void* p) {
  address_of(p, sizeof(Barrier));
  auto& barrier = *static_cast<Barrier*>(const_cast<void*>(p));
  if (barrier.expected == 0 || barrier.expected == 0xffff)
    throw Error("a barrier is used that nobody has made");
  return barrier;
}

void end_phase_if_complete(Barrier& barrier) {
  if (barrier.pending != 0 || barrier.bytes != 0) return;
  barrier.phase ^= 1;
  barrier.pending = barrier.expected & 0x7fff;
}

}  // namespace

uint32_t address_of(const void* p, int alignment) {
  const auto offset = static_cast<const unsigned char*>(p) - dynamic_shared;
  if (!dynamic_shared || offset < 0 || static_cast<size_t>(offset) > dynamic_shared_bytes)
    throw Error("an address that is not of the block's dynamic shared memory");
  const auto address = static_cast<uint32_t>(offset) + kSharedBegin;
  if (address % static_cast<uint32_t>(alignment))
    throw Error("shared memory that is not aligned to " + std::to_string(alignment) + " bytes");
  return address;
}

unsigned char* memory_at(uint32_t address, uint32_t bytes) {
  if (address < kSharedBegin || address + bytes > kSharedBegin + dynamic_shared_bytes)
    throw Error("an operand that reaches beyond the block's shared memory");
  return dynamic_shared + (address - kSharedBegin);
}

uint32_t element_address(uint64_t descriptor, int row, int k, bool transposed) {
  const auto field = [&](int bit) {
    return static_cast<uint32_t>(descriptor >> bit & 0x3fff) << 4;
  };
  const uint32_t start = field(0), leading = field(16), stride = field(32);
  const auto base = static_cast<uint32_t>(descriptor >> 49 & 7);
  const auto swizzle = static_cast<uint32_t>(descriptor >> 62);
  const auto r = static_cast<uint32_t>(row), c = static_cast<uint32_t>(k);
  if (swizzle == 0) {
    if (base != 0) throw Error("a base offset without a pattern");
    return transposed ? start + r % 8 * 2 + r / 8 * stride + c / 8 * leading + c % 8 * 16
                      : start + r % 8 * 16 + r / 8 * stride + c / 8 * leading + c % 8 * 2;
  }
  if (swizzle != 1) throw Error("only the 128-byte pattern is emulated");
  // The pattern begins at a multiple of its 1,024 bytes, or the base offset says where.
  if (base != 0 || (start >> 7 & 7) != 0) throw Error("a pattern that begins within another one");
  return swizzled(transposed ? start + r % 64 * 2 + r / 64 * leading + c % 8 * 128 + c / 8 * stride
                             : start + r % 8 * 128 + r / 8 * stride + c * 2);
}

void make_barrier(void* p, int arrivals) {
  address_of(p, sizeof(Barrier));
  *static_cast<Barrier*>(p) = {static_cast<uint16_t>(arrivals), static_cast<uint16_t>(arrivals), 0,
                               0};
}

void arrive(void* p, int bytes) {
  if (!self().published || !self().copies.empty())
    throw Error("what a thread has written is given away before products can see it");
  Barrier& barrier = barrier_at(p);
  if (barrier.pending == 0) throw Error("more threads arrive at a barrier than it was made for");
  barrier.bytes += bytes;
  --barrier.pending;
  end_phase_if_complete(barrier);
}

void wait_for_phase(const void* p, int parity) {
  barrier_at(p);
  const auto ended = [](const void* on, unsigned value) {
    return static_cast<const Barrier*>(on)->phase != value;
  };
  wait_until({ended, p, static_cast<unsigned>(parity), "the end of a barrier's phase"});
}

void copy_box(void* to, const CUtensorMap& opaque, const int* coordinates, int rank, void* p) {
  if (rank != 3) throw Error("only boxes of three dimensions are emulated");
  Map map;
  std::memcpy(&map, &opaque, sizeof map);
  std::array<int, 3> begin = {coordinates[0], coordinates[1], coordinates[2]};
  const uint32_t target = address_of(to, 128);
  const uint32_t bytes = map.box[0] * map.box[1] * map.box[2] * 2;
  memory_at(target, bytes);
  barrier_at(p);
  beside_threads([=] {
    uint32_t at = target;
    for (uint32_t k = 0; k < map.box[2]; ++k)
      for (uint32_t j = 0; j < map.box[1]; ++j)
        for (uint32_t i = 0; i < map.box[0]; ++i, at += 2) {
          const int64_t from[] = {int64_t{begin[0]} + i, int64_t{begin[1]} + j,
                                  int64_t{begin[2]} + k};
          const unsigned char* source = map.tensor;
          bool inside = true;
          for (int d = 0; d < 3; ++d) {
            inside &= from[d] >= 0 && static_cast<uint64_t>(from[d]) < map.sizes[d];
            source += from[d] * static_cast<int64_t>(map.strides[d]);
          }
          uint16_t value = 0;
          if (inside) std::memcpy(&value, source, sizeof value);
          std::memcpy(memory_at(map.swizzle ? swizzled(at) : at, 2), &value, sizeof value);
        }
    Barrier& barrier = barrier_at(p);
    barrier.bytes -= static_cast<int32_t>(bytes);
    end_phase_if_complete(barrier);
  });
}

void copy_16_bytes(void* to, const void* from, bool there) {
  memory_at(address_of(to, 16), 16);
  if (reinterpret_cast<uintptr_t>(from) % 16) throw Error("a copy from memory that is not aligned");
  self().copies.push_back({to, there ? from : nullptr});
  self().published = false;
}

void wait_for_copies() {
  for (const Copy& copy : std::exchange(self().copies, {})) {
    if (copy.from) {
      std::memcpy(copy.to, copy.from, 16);
    } else {
      std::memset(copy.to, 0, 16);
    }
  }
}

void note_store(const void* to) {
  memory_at(address_of(to, 16), 16);
  self().published = false;
}

void publish() {
  if (self().copies.empty()) self().published = true;
}

void begin_products() { self().begun = true; }

void product(std::function<void()> multiply) {
  if (!self().begun) throw Error("a product whose sums a thread may still be touching");
  self().open.push_back(std::move(multiply));
}

void commit_products() { self().groups.push_back(std::exchange(self().open, {})); }

void wait_for_products(int under_way) {
  Thread& thread = self();
  while (thread.groups.size() > static_cast<size_t>(under_way)) {
    for (const auto& multiply : thread.groups.front()) multiply();
    thread.groups.erase(thread.groups.begin());
  }
  thread.begun = false;
}

// The driver's own conditions, of those fields that the kernels use.
CUresult encode_tiled(CUtensorMap* map, CUtensorMapDataType type, cuuint32_t rank, void* address,
                      const cuuint64_t* sizes, const cuuint64_t* strides, const cuuint32_t* box,
                      const cuuint32_t* every, CUtensorMapInterleave interleave,
                      CUtensorMapSwizzle swizzle, CUtensorMapL2promotion, CUtensorMapFloatOOBfill) {
  const bool swizzles = swizzle == CU_TENSOR_MAP_SWIZZLE_128B;
  bool right =
      rank == 3 && reinterpret_cast<uintptr_t>(address) % 16 == 0 &&
      reinterpret_cast<uintptr_t>(map) % 64 == 0 && interleave == CU_TENSOR_MAP_INTERLEAVE_NONE &&
      (type == CU_TENSOR_MAP_DATA_TYPE_FLOAT16 || type == CU_TENSOR_MAP_DATA_TYPE_BFLOAT16) &&
      (swizzles || swizzle == CU_TENSOR_MAP_SWIZZLE_NONE) && box[0] * 2 % 16 == 0 &&
      (!swizzles || box[0] * 2 <= 128);
  Map made = {static_cast<const unsigned char*>(address), {}, {2, 0, 0}, {}, swizzles};
  for (int d = 0; right && d < 3; ++d) {
    right = sizes[d] >= 1 && sizes[d] <= uint64_t{1} << 32 && box[d] >= 1 && box[d] <= 256 &&
            every[d] == 1;
    made.sizes[d] = sizes[d];
    made.box[d] = box[d];
    if (d == 0) continue;
    right &= strides[d - 1] % 16 == 0 && strides[d - 1] < uint64_t{1} << 40;
    made.strides[d] = strides[d - 1];
  }
  if (!right) return CUDA_ERROR_INVALID_VALUE;
  std::memset(map, 0xff, sizeof *map);
  std::memcpy(map, &made, sizeof made);
  return CUDA_SUCCESS;
}

}  // namespace cuda_emulator
