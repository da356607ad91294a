// Copies in the background, which happen as late as a kernel allows.
#pragma once

#include "cuda_runtime.h"

inline void __pipeline_memcpy_async(void* target, const void* source, size_t size) {
  const auto misplaced = (reinterpret_cast<uintptr_t>(target) | reinterpret_cast<uintptr_t>(source)) % size;
  if (misplaced != 0) std::abort();
  emulator::fibers[emulator::current].groups.back().push_back({target, source, size});
}

inline void __pipeline_commit() { emulator::fibers[emulator::current].groups.emplace_back(); }

inline void __pipeline_wait_prior(size_t prior) {
  auto& groups = emulator::fibers[emulator::current].groups;
  const size_t committed = groups.size() - 1;
  for (size_t n = 0; n + prior < committed; ++n) {
    for (const emulator::Copy& copy : groups[n]) std::memcpy(copy.target, copy.source, copy.size);
    groups[n].clear();
  }
}
