// The kernels of correlation.cu, run by the emulator, as functions that ctypes can call.
#include "cuda_runtime.h"

#include "correlation.cu"

namespace {

dwarf::Correlation correlation_of(const int64_t* sizes, float slope) {
  return {sizes[0], sizes[1], sizes[2], sizes[3], sizes[4], sizes[5], sizes[6], slope};
}

int answer(const std::string& error) { return error.empty() ? 0 : 1; }

}  // namespace

// sizes: batch, height, width, channels, reach_y, reach_x, depth. type: as dwarf::Type.
extern "C" int emulated_correlate(int type, const int64_t* sizes, float slope, void* first, int64_t first_stride,
                                  void* second, int64_t second_stride, void* volume, int64_t volume_stride, int strip,
                                  int backwards) {
  emulator::backwards = backwards != 0;
  return answer(dwarf::gpu::correlate(nullptr, static_cast<dwarf::Type>(type), correlation_of(sizes, slope),
                                      {first, first_stride}, {second, second_stride}, {volume, volume_stride}, strip));
}

extern "C" int emulated_gradient(int type, const int64_t* sizes, float slope, int operand, void* other,
                                 int64_t other_stride, void* volume, void* cotangent, int64_t volume_stride, void* base,
                                 void* gradient, int64_t gradient_stride, int backwards) {
  emulator::backwards = backwards != 0;
  return answer(dwarf::gpu::correlate_gradient(
      nullptr, static_cast<dwarf::Type>(type), correlation_of(sizes, slope),
      operand == 0 ? dwarf::Operand::first : dwarf::Operand::second, {other, other_stride}, {volume, volume_stride},
      {cotangent, volume_stride}, {base, gradient_stride}, {gradient, gradient_stride}));
}
