// The checks, the CPU kernels, and the order in which the volumes of a level and their gradients are computed.
#include "correlation.h"

#include <algorithm>
#include <utility>
#include <vector>

namespace dwarf {
namespace {

int64_t element_size(Type type) { return type == Type::float32 ? 4 : 2; }

Map slice(Map map, Type type, int64_t channel) {
  return {static_cast<char*>(map.data) + channel * element_size(type), map.stride};
}

std::string refused(const char* name, int64_t value, const char* expected) {
  return "correlation: " + std::string(name) + " is " + std::to_string(value) + ", expected " + expected;
}

std::string wrong(const Correlation& c) {
  const int64_t largest = int64_t{1} << 24;
  const std::pair<const char*, int64_t> sizes[] = {
      {"batch", c.batch}, {"height", c.height}, {"width", c.width}};
  for (const auto& [name, value] : sizes) {
    if (value < 0 || value > largest) return refused(name, value, "0 to 2^24");
  }
  if (c.channels < 1 || c.channels > largest) return refused("channels", c.channels, "1 to 2^24");
  return wrong_displacements(c);
}

template <typename T>
std::vector<float> unpacked(Map map, int64_t pixels, int64_t channels) {
  std::vector<float> values(pixels * channels);
  const T* data = static_cast<const T*>(map.data);
  for (int64_t pixel = 0; pixel < pixels; ++pixel) {
    for (int64_t c = 0; c < channels; ++c) {
      values[pixel * channels + c] = to_float(data[pixel * map.stride + c]);
    }
  }
  return values;
}

float dot(const float* a, const float* b, int64_t count) {
  float sums[8] = {};
  int64_t c = 0;
  for (; c + 8 <= count; c += 8) {
    for (int lane = 0; lane < 8; ++lane) sums[lane] += a[c + lane] * b[c + lane];
  }
  for (int lane = 0; c < count; ++c, ++lane) sums[lane] += a[c] * b[c];
  return ((sums[0] + sums[4]) + (sums[2] + sums[6])) + ((sums[1] + sums[5]) + (sums[3] + sums[7]));
}

template <typename T>
void correlate_on_cpu(const Correlation& c, Map first_map, Map second_map, Map volume) {
  const std::vector<float> first = unpacked<T>(first_map, c.pixels(), c.channels);
  const std::vector<float> second = unpacked<T>(second_map, c.pixels(), c.channels);
  const float scale = 1.0f / static_cast<float>(c.channels);
  for (int64_t pixel = 0; pixel < c.pixels(); ++pixel) {
    const int64_t x = pixel % c.width;
    const int64_t y = pixel / c.width % c.height;
    const float* a = &first[pixel * c.channels];
    T* out = static_cast<T*>(volume.data) + pixel * volume.stride;
    for (int64_t k = -c.depth; k <= c.depth; ++k) {
      const int64_t begin = std::max<int64_t>(0, -k);
      const int64_t count = std::min(c.channels, c.channels - k) - begin;
      for (int64_t j = -c.reach_y; j <= c.reach_y; ++j) {
        for (int64_t i = -c.reach_x; i <= c.reach_x; ++i) {
          float value = 0.0f;
          if (y + j >= 0 && y + j < c.height && x + i >= 0 && x + i < c.width && count > 0) {
            const float* b = &second[(pixel + j * c.width + i) * c.channels];
            value = scale * dot(a + begin, b + begin + k, count);
          }
          *out++ = from_float<T>(value > 0.0f ? value : value * c.slope);
        }
      }
    }
  }
}

template <typename T>
void gradient_on_cpu(const Correlation& c, Operand operand, Map other_map, Map volume, Map cotangent,
                     Map base, Map gradient) {
  const std::vector<float> other = unpacked<T>(other_map, c.pixels(), c.channels);
  const float scale = 1.0f / static_cast<float>(c.channels);
  std::vector<float> sums(c.channels);
  for (int64_t pixel = 0; pixel < c.pixels(); ++pixel) {
    const int64_t x = pixel % c.width;
    const int64_t y = pixel / c.width % c.height;
    std::fill(sums.begin(), sums.end(), 0.0f);
    for (int64_t k = -c.depth; k <= c.depth; ++k) {
      const int64_t begin = std::max<int64_t>(0, -k);
      const int64_t end = std::min(c.channels, c.channels - k);
      for (int64_t j = -c.reach_y; j <= c.reach_y; ++j) {
        for (int64_t i = -c.reach_x; i <= c.reach_x; ++i) {
          if (y + j < 0 || y + j >= c.height || x + i < 0 || x + i >= c.width) continue;
          const int64_t neighbour = pixel + j * c.width + i;
          // The second operand meets the first at the opposite displacement, in the first one's pixel.
          const bool is_first = operand == Operand::first;
          const int64_t source = is_first ? pixel : neighbour;
          int64_t channel = ((k + c.depth) * c.lines() + j + c.reach_y) * c.columns() + i + c.reach_x;
          if (!is_first) channel = c.volume_channels() - 1 - channel;
          float weight =
              to_float(static_cast<const T*>(cotangent.data)[source * cotangent.stride + channel]);
          if (c.slope != 1.0f &&
              !(to_float(static_cast<const T*>(volume.data)[source * volume.stride + channel]) > 0.0f)) {
            weight *= c.slope;
          }
          const float* b = &other[neighbour * c.channels];
          for (int64_t channel_of = begin; channel_of < end; ++channel_of) {
            sums[channel_of] += weight * b[channel_of + k];
          }
        }
      }
    }
    const T* start =
        base.data ? static_cast<const T*>(base.data) + pixel * base.stride : nullptr;
    T* out = static_cast<T*>(gradient.data) + pixel * gradient.stride;
    for (int64_t channel = 0; channel < c.channels; ++channel) {
      const float before = start ? to_float(start[channel]) : 0.0f;
      out[channel] = from_float<T>(before + scale * sums[channel]);
    }
  }
}

// The volumes of a level as correlations, each with its first channel in the whole.
struct Volumes {
  Correlation stereo, temporal, flow;
  int64_t second_stereo, first_temporal, first_flow, channels;
};

Volumes volumes_of(const Correlation& sizes) {
  Volumes v;
  v.stereo = v.temporal = v.flow = sizes;
  v.stereo.reach_y = v.stereo.depth = v.flow.depth = 0;
  v.temporal.reach_y = v.flow.reach_y = sizes.reach_x;
  v.temporal.channels = sizes.columns();
  v.second_stereo = sizes.columns();
  v.first_temporal = 2 * sizes.columns();
  v.first_flow = v.first_temporal + v.temporal.volume_channels();
  v.channels = v.first_flow + v.flow.volume_channels();
  return v;
}

}  // namespace

std::string wrong_displacements(const Correlation& c) {
  const std::pair<const char*, int64_t> reaches[] = {{"vertical displacement", c.reach_y},
                                                     {"horizontal displacement", c.reach_x},
                                                     {"depth displacement", c.depth}};
  for (const auto& [name, value] : reaches) {
    if (value < 0 || value > 1024) return refused(name, value, "0 to 1024");
  }
  if (c.volume_channels() > int64_t{1} << 30) {
    return refused("number of displacements", c.volume_channels(), "at most 2^30");
  }
  if (!(c.slope > 0.0f)) return "correlation: slope is not positive";
  return "";
}

std::string correlate(Device device, Type type, const Correlation& correlation, Map first, Map second,
                      Map volume) {
  const std::string error = wrong(correlation);
  if (!error.empty() || correlation.pixels() == 0) return error;
#ifdef DWARF_CUDA
  if (device.gpu) return gpu::correlate(device.stream, type, correlation, first, second, volume, 0);
#endif
  if (device.gpu) return "correlation: this library was built without CUDA";
  switch (type) {
    case Type::float32: correlate_on_cpu<float>(correlation, first, second, volume); break;
    case Type::float16: correlate_on_cpu<Half>(correlation, first, second, volume); break;
    case Type::bfloat16: correlate_on_cpu<BFloat16>(correlation, first, second, volume); break;
  }
  return "";
}

std::string correlate_gradient(Device device, Type type, const Correlation& correlation,
                               Operand operand, Map other, Map volume, Map cotangent, Map base,
                               Map gradient) {
  const std::string error = wrong(correlation);
  if (!error.empty() || correlation.pixels() == 0) return error;
#ifdef DWARF_CUDA
  if (device.gpu) {
    return gpu::correlate_gradient(device.stream, type, correlation, operand, other, volume, cotangent, base,
                                   gradient);
  }
#endif
  if (device.gpu) return "correlation: this library was built without CUDA";
  switch (type) {
    case Type::float32:
      gradient_on_cpu<float>(correlation, operand, other, volume, cotangent, base, gradient);
      break;
    case Type::float16:
      gradient_on_cpu<Half>(correlation, operand, other, volume, cotangent, base, gradient);
      break;
    case Type::bfloat16:
      gradient_on_cpu<BFloat16>(correlation, operand, other, volume, cotangent, base, gradient);
      break;
  }
  return "";
}

int64_t cost_volume_channels(const Correlation& sizes) { return volumes_of(sizes).channels; }

std::string cost_volumes(Device device, Type type, const Correlation& sizes, const Map features[4],
                         Map volumes) {
  const Volumes v = volumes_of(sizes);
  const Map stereo_t0 = volumes;
  const Map stereo_t1 = slice(volumes, type, v.second_stereo);
  std::string error = correlate(device, type, v.stereo, features[0], features[1], stereo_t0);
  if (error.empty()) error = correlate(device, type, v.stereo, features[2], features[3], stereo_t1);
  if (error.empty()) {
    error = correlate(device, type, v.temporal, stereo_t0, stereo_t1,
                      slice(volumes, type, v.first_temporal));
  }
  if (error.empty()) {
    error = correlate(device, type, v.flow, features[0], features[2], slice(volumes, type, v.first_flow));
  }
  return error;
}

std::string cost_volumes_gradient(Device device, Type type, const Correlation& sizes,
                                  const Map features[4], Map volumes, Map cotangent, void* scratch,
                                  const Map gradients[4]) {
  const Volumes v = volumes_of(sizes);
  const Map none = {nullptr, 0};
  const Map stereo[2] = {volumes, slice(volumes, type, v.second_stereo)};
  const Map temporal = slice(volumes, type, v.first_temporal);
  const Map flow = slice(volumes, type, v.first_flow);
  const Map stereo_cotangent[2] = {cotangent, slice(cotangent, type, v.second_stereo)};
  const Map temporal_cotangent = slice(cotangent, type, v.first_temporal);
  const Map flow_cotangent = slice(cotangent, type, v.first_flow);
  // What reaches the stereo volumes: their own cotangents and what comes back from the correlation of the two.
  const Map whole_scratch = {scratch, 2 * sizes.columns()};
  const Map reaching[2] = {whole_scratch, slice(whole_scratch, type, v.second_stereo)};

  const struct {
    const Correlation& correlation;
    Operand operand;
    Map other, volume, cotangent, base, gradient;
  } steps[] = {
      {v.temporal, Operand::first, stereo[1], temporal, temporal_cotangent, stereo_cotangent[0], reaching[0]},
      {v.temporal, Operand::second, stereo[0], temporal, temporal_cotangent, stereo_cotangent[1], reaching[1]},
      {v.stereo, Operand::first, features[1], stereo[0], reaching[0], none, gradients[0]},
      {v.stereo, Operand::second, features[0], stereo[0], reaching[0], none, gradients[1]},
      {v.stereo, Operand::first, features[3], stereo[1], reaching[1], none, gradients[2]},
      {v.stereo, Operand::second, features[2], stereo[1], reaching[1], none, gradients[3]},
      {v.flow, Operand::first, features[2], flow, flow_cotangent, gradients[0], gradients[0]},
      {v.flow, Operand::second, features[0], flow, flow_cotangent, gradients[2], gradients[2]},
  };
  for (const auto& step : steps) {
    const std::string error =
        correlate_gradient(device, type, step.correlation, step.operand, step.other, step.volume,
                           step.cotangent, step.base, step.gradient);
    if (!error.empty()) return error;
  }
  return "";
}

}  // namespace dwarf

// Read from the library's file: the GPU architectures that it holds kernels for, none where it was built without CUDA.
#ifndef DWARF_ARCHITECTURES
#define DWARF_ARCHITECTURES ""
#endif
extern "C" __attribute__((used, visibility("default"))) const char dwarf_architectures[] =
    "architectures:" DWARF_ARCHITECTURES;
