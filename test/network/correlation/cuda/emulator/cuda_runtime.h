// Stands in for CUDA's header, to run its kernels on a CPU: the threads of a block are fibers that take turns at each barrier,
// forwards or backwards, and copies in the background happen only when they are waited for. What is right here does not
// depend on the order of threads between barriers.
#pragma once

#include <ucontext.h>

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <limits>
#include <memory>
#include <vector>

#define __global__
#define __device__
#define __host__
#define __shared__
#define __launch_bounds__(...)

struct dim3 {
  unsigned x, y, z;
  explicit dim3(unsigned columns = 1) : x(columns), y(1), z(1) {}
};
struct alignas(16) float4 {
  float x, y, z, w;
};
struct alignas(8) uint2 {
  unsigned x, y;
};
inline float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }

using cudaError_t = int;
using cudaStream_t = void*;
enum { cudaSuccess = 0, cudaDevAttrMultiProcessorCount = 16 };
inline cudaError_t cudaGetLastError() { return cudaSuccess; }
inline const char* cudaGetErrorString(cudaError_t) { return "no error"; }
inline cudaError_t cudaGetDevice(int* card) { return *card = 0; }
inline cudaError_t cudaDeviceGetAttribute(int* value, int, int) {
  *value = 2;
  return cudaSuccess;
}

inline dim3 threadIdx, blockIdx, blockDim, gridDim;

namespace emulator {

// More blocks than this loop over the rest, which the grid of a real card does only beyond 2^30.
constexpr unsigned kMostBlocks = 3;
constexpr size_t kStack = 64 * 1024;
constexpr size_t kSharedFloats = 48 * 1024 / sizeof(float);

struct Copy {
  void* target;
  const void* source;
  size_t size;
};

struct Fiber {
  ucontext_t context;
  std::unique_ptr<char[]> stack;
  bool finished = false;
  std::vector<std::vector<Copy>> groups;
};

inline std::vector<Fiber> fibers;
inline ucontext_t scheduler;
inline unsigned current = 0;
inline bool backwards = false;
inline std::function<void()> body;

inline void enter() {
  body();
  fibers[current].finished = true;
  swapcontext(&fibers[current].context, &scheduler);
}

// Runs every thread up to its next barrier, until all have ended. A barrier that only some reach is an error.
inline void run_block(unsigned threads) {
  fibers.clear();
  fibers.resize(threads);
  for (Fiber& fiber : fibers) {
    fiber.stack = std::make_unique<char[]>(kStack);
    fiber.groups.resize(1);
    getcontext(&fiber.context);
    fiber.context.uc_stack.ss_sp = fiber.stack.get();
    fiber.context.uc_stack.ss_size = kStack;
    makecontext(&fiber.context, enter, 0);
  }
  for (unsigned finished = 0; finished < threads;) {
    for (unsigned n = 0; n < threads; ++n) {
      current = backwards ? threads - 1 - n : n;
      threadIdx = dim3(current);
      threadIdx.x = current;
      swapcontext(&scheduler, &fibers[current].context);
    }
    finished = 0;
    for (const Fiber& fiber : fibers) finished += fiber.finished;
    if (finished != 0 && finished != threads) std::abort();
  }
}

}  // namespace emulator

inline void __syncthreads() {
  emulator::Fiber& fiber = emulator::fibers[emulator::current];
  swapcontext(&fiber.context, &emulator::scheduler);
}

// Where the kernels' dynamic shared memory lies, with a guard behind it.
namespace dwarf::gpu {
namespace {
alignas(16) float4 shared[emulator::kSharedFloats / 4 + 64];
}
}  // namespace dwarf::gpu

template <typename P>
cudaError_t cudaLaunchKernel(void (*kernel)(P), dim3 grid, dim3 block, void** arguments, size_t shared_bytes,
                             cudaStream_t) {
  const P parameters = *static_cast<const P*>(arguments[0]);
  float* memory = reinterpret_cast<float*>(dwarf::gpu::shared);
  const size_t floats = shared_bytes / sizeof(float);
  const float guard = 12345.0f;
  gridDim.x = grid.x < emulator::kMostBlocks ? grid.x : emulator::kMostBlocks;
  blockDim.x = block.x;
  for (unsigned n = 0; n < gridDim.x; ++n) {
    blockIdx.x = n;
    for (size_t i = 0; i < emulator::kSharedFloats + 256; ++i) {
      memory[i] = i < floats ? std::numeric_limits<float>::quiet_NaN() : guard;
    }
    emulator::body = [&] { kernel(parameters); };
    emulator::run_block(block.x);
    for (size_t i = floats; i < emulator::kSharedFloats + 256; ++i) {
      if (memory[i] != guard) std::abort();
    }
  }
  return cudaSuccess;
}
