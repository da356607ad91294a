// Correlations of feature maps and their gradients, on the CPU and on CUDA, behind one interface without a framework.
//
// Maps are batch x height x width x channels with a free distance between pixels, so that a map can be a slice of the
// channels of a wider one. Volume channel ((k + depth) * (2 reach_y + 1) + (j + reach_y)) * (2 reach_x + 1) + (i + reach_x) is the
// mean over c of first[y, x, c] * second[y + j, x + i, c + k], zero outside, then leaky ReLU.
#pragma once

#include <cstdint>
#include <cstring>
#include <string>

#ifdef __CUDACC__
#include <cuda_fp16.h>
#define DWARF_ANYWHERE __host__ __device__ __forceinline__
#else
#define DWARF_ANYWHERE inline
#endif

namespace dwarf {

struct Half {
  uint16_t bits;
};
struct BFloat16 {
  uint16_t bits;
};

DWARF_ANYWHERE float float_of_bits(uint32_t bits) {
#ifdef __CUDA_ARCH__
  return __uint_as_float(bits);
#else
  float value;
  std::memcpy(&value, &bits, sizeof(value));
  return value;
#endif
}

DWARF_ANYWHERE uint32_t bits_of_float(float value) {
#ifdef __CUDA_ARCH__
  return __float_as_uint(value);
#else
  uint32_t bits;
  std::memcpy(&bits, &value, sizeof(bits));
  return bits;
#endif
}

DWARF_ANYWHERE float to_float(float value) { return value; }

DWARF_ANYWHERE float to_float(BFloat16 value) {
  return float_of_bits(static_cast<uint32_t>(value.bits) << 16);
}

DWARF_ANYWHERE float to_float(Half value) {
#ifdef __CUDA_ARCH__
  return __half2float(__ushort_as_half(value.bits));
#else
  const uint32_t sign = static_cast<uint32_t>(value.bits & 0x8000u) << 16;
  const uint32_t exponent = (value.bits >> 10) & 31u;
  const uint32_t mantissa = value.bits & 0x3ffu;
  if (exponent == 0) {
    const float magnitude = static_cast<float>(mantissa) * 0x1p-24f;
    return sign ? -magnitude : magnitude;
  }
  const uint32_t widened = exponent == 31 ? 255u : exponent + 112u;
  return float_of_bits(sign | widened << 23 | mantissa << 13);
#endif
}

// Rounds to nearest, ties to even, as the frameworks do.
template <typename T>
DWARF_ANYWHERE T from_float(float value);

template <>
DWARF_ANYWHERE float from_float<float>(float value) {
  return value;
}

template <>
DWARF_ANYWHERE BFloat16 from_float<BFloat16>(float value) {
  const uint32_t bits = bits_of_float(value);
  const bool nan = (bits & 0x7fffffffu) > 0x7f800000u;
  const uint32_t rounded = nan ? bits | 0x400000u : bits + 0x7fffu + ((bits >> 16) & 1u);
  return BFloat16{static_cast<uint16_t>(rounded >> 16)};
}

template <>
DWARF_ANYWHERE Half from_float<Half>(float value) {
#ifdef __CUDA_ARCH__
  return Half{__half_as_ushort(__float2half_rn(value))};
#else
  const uint32_t bits = bits_of_float(value);
  const uint32_t sign = bits >> 16 & 0x8000u;
  uint32_t magnitude = bits & 0x7fffffffu;
  if (magnitude > 0x7f800000u) {
    magnitude = 0x7e00u;
  } else if (magnitude >= 0x47800000u) {
    magnitude = 0x7c00u;
  } else if (magnitude < 0x38800000u) {
    // Next to one half a float's last digit is 2^-24, the unit of halves without an exponent: the addition rounds.
    magnitude = bits_of_float(float_of_bits(magnitude) + 0.5f) - 0x3f000000u;
  } else {
    magnitude = (magnitude + 0xfffu + (magnitude >> 13 & 1u) - (112u << 23)) >> 13;
  }
  return Half{static_cast<uint16_t>(sign | magnitude)};
#endif
}

enum class Type { float32, float16, bfloat16 };

// A null stream pointer is CUDA's default stream, so the device is named beside it.
struct Device {
  bool gpu;
  void* stream;
};

// A map in memory; stride counts elements from one pixel to the next.
struct Map {
  void* data;
  int64_t stride;
};

struct Correlation {
  int64_t batch, height, width, channels;
  int64_t reach_y, reach_x, depth;
  float slope;  // of the leaky ReLU for negative values; 1 leaves the correlation as it is

  int64_t lines() const { return 2 * reach_y + 1; }
  int64_t columns() const { return 2 * reach_x + 1; }
  int64_t volume_channels() const { return (2 * depth + 1) * lines() * columns(); }
  int64_t pixels() const { return batch * height * width; }
};

// Which operand a gradient is for.
enum class Operand { first, second };

// The functions below return an error message of one line, empty on success. On the GPU they only queue work.

// Checks reach_y, reach_x, depth and slope; call it before asking for the sizes of volumes.
std::string wrong_displacements(const Correlation& correlation);

// volume <- correlation of first and second.
std::string correlate(Device device, Type type, const Correlation& correlation, Map first, Map second,
                      Map volume);

// gradient <- base + derivative by `operand` of the sum of cotangent * volume, of which `other` is the other operand.
// base.data may be null, for zero, or gradient.data; volume.data may be null where the slope is 1.
std::string correlate_gradient(Device device, Type type, const Correlation& correlation,
                               Operand operand, Map other, Map volume, Map cotangent, Map base,
                               Map gradient);

// The four activated cost volumes of a level in one map: stereo at t0 and t1 (2r + 1 channels each), both over time (3D,
// (2 depth + 1) (2r + 1)^2), flow ((2r + 1)^2). Of `sizes`, reach_x is r, and reach_y is not used.
int64_t cost_volume_channels(const Correlation& sizes);
std::string cost_volumes(Device device, Type type, const Correlation& sizes, const Map features[4],
                         Map volumes);

// Gradients by the four feature maps, in the order left_t0, right_t0, left_t1, right_t1. scratch has room for
// pixels() * 2 * columns() elements.
std::string cost_volumes_gradient(Device device, Type type, const Correlation& sizes,
                                  const Map features[4], Map volumes, Map cotangent, void* scratch,
                                  const Map gradients[4]);

// For the GPU alone, called by the above. strip is the number of pixels a thread correlates: 4, 8, or 0 for what suits
// the size and the card.
namespace gpu {
std::string correlate(void* stream, Type type, const Correlation& correlation, Map first, Map second,
                      Map volume, int strip);
std::string correlate_gradient(void* stream, Type type, const Correlation& correlation,
                               Operand operand, Map other, Map volume, Map cotangent, Map base,
                               Map gradient);
}  // namespace gpu

}  // namespace dwarf
