// Checks and times the CUDA kernels without a framework; benchmarks/correlation.py builds and runs it.
//   check: each kernel against the CPU kernel, in slices of wider maps, and twice for the same bits. Small, for compute-sanitizer.
//   large: more than 2^31 elements, where there is memory for them.
//   time: one JSON object a line: microseconds a call, in CUDA graphs that take turns over more maps than the cache holds.
#include <cuda_runtime.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <random>
#include <string>
#include <vector>

#include "correlation.h"

namespace {

using dwarf::Correlation;
using dwarf::Map;
using dwarf::Operand;
using dwarf::Type;

constexpr Type kTypes[] = {Type::float32, Type::float16, Type::bfloat16};
constexpr const char* kTypeNames[] = {"float32", "float16", "bfloat16"};

void require(cudaError_t status, const char* what) {
  if (status == cudaSuccess) return;
  std::fprintf(stderr, "correlation: %s: %s\n", what, cudaGetErrorString(status));
  std::exit(1);
}

void require(const std::string& error) {
  if (error.empty()) return;
  std::fprintf(stderr, "%s\n", error.c_str());
  std::exit(1);
}

int64_t size_of(Type type) { return type == Type::float32 ? 4 : 2; }

float read(Type type, const void* data, int64_t index) {
  switch (type) {
    case Type::float16: return dwarf::to_float(static_cast<const dwarf::Half*>(data)[index]);
    case Type::bfloat16: return dwarf::to_float(static_cast<const dwarf::BFloat16*>(data)[index]);
    default: return static_cast<const float*>(data)[index];
  }
}

void write(Type type, void* data, int64_t index, float value) {
  switch (type) {
    case Type::float16: static_cast<dwarf::Half*>(data)[index] = dwarf::from_float<dwarf::Half>(value); break;
    case Type::bfloat16: static_cast<dwarf::BFloat16*>(data)[index] = dwarf::from_float<dwarf::BFloat16>(value); break;
    default: static_cast<float*>(data)[index] = value;
  }
}

std::vector<char> random_values(Type type, int64_t count, std::mt19937& generator) {
  std::normal_distribution<float> normal;
  std::vector<char> values(count * size_of(type));
  for (int64_t i = 0; i < count; ++i) write(type, values.data(), i, normal(generator));
  return values;
}

// Memory of the GPU, which it gives back.
class Buffer {
 public:
  explicit Buffer(int64_t bytes) : bytes_(bytes) { require(cudaMalloc(&data_, std::max<int64_t>(bytes, 1)), "cudaMalloc"); }
  explicit Buffer(const std::vector<char>& values) : Buffer(static_cast<int64_t>(values.size())) {
    require(cudaMemcpy(data_, values.data(), values.size(), cudaMemcpyHostToDevice), "cudaMemcpy");
  }
  Buffer(Buffer&& other) noexcept : data_(other.data_), bytes_(other.bytes_) { other.data_ = nullptr; }
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;
  ~Buffer() { cudaFree(data_); }

  void* data() const { return data_; }
  std::vector<char> values() const {
    std::vector<char> copy(bytes_);
    require(cudaMemcpy(copy.data(), data_, bytes_, cudaMemcpyDeviceToHost), "cudaMemcpy");
    return copy;
  }

 private:
  void* data_ = nullptr;
  int64_t bytes_;
};

Map at(void* data, int64_t stride, int64_t channel, Type type) {
  return {static_cast<char*>(data) + channel * size_of(type), stride};
}

int failures = 0;

// Compares with the CPU's answer: all of the memory, so that nothing beside the slice may have changed.
void compare(const char* what, Type type, const Correlation& c, const std::vector<char>& cpu, const std::vector<char>& gpu,
             const std::vector<char>& again) {
  double worst = 0.0;
  double largest = 1.0;
  for (int64_t i = 0; i < static_cast<int64_t>(cpu.size()) / size_of(type); ++i) {
    const double expected = read(type, cpu.data(), i);
    const double found = read(type, gpu.data(), i);
    largest = std::max(largest, std::abs(expected));
    if (!(std::abs(found - expected) <= worst)) worst = std::isnan(found) ? INFINITY : std::abs(found - expected);
  }
  // Two different sums may round to neighbours.
  const double unit = type == Type::float32 ? 1e-6 : type == Type::float16 ? 0x1p-10 : 0x1p-7;
  const bool right = worst <= 4.0 * unit * largest;
  const bool same = gpu == again;
  if (right && same) return;
  ++failures;
  std::printf("%s %s %lldx%lldx%lldx%lld reach %lld %lld %lld: off by %g%s\n", what, kTypeNames[static_cast<int>(type)],
              static_cast<long long>(c.batch), static_cast<long long>(c.height), static_cast<long long>(c.width),
              static_cast<long long>(c.channels), static_cast<long long>(c.reach_y), static_cast<long long>(c.reach_x),
              static_cast<long long>(c.depth), worst, same ? "" : ", and other bits the second time");
}

void check_one(Type type, const Correlation& c, int64_t before, int64_t after, int strip, std::mt19937& generator) {
  const int64_t stride = before + c.channels + after;
  const int64_t volume_stride = before + c.volume_channels() + after;
  const dwarf::Device cpu = {false, nullptr};
  std::vector<char> first = random_values(type, c.pixels() * stride, generator);
  std::vector<char> second = random_values(type, c.pixels() * stride, generator);
  std::vector<char> cotangent = random_values(type, c.pixels() * volume_stride, generator);
  // What is there before is random too: whatever is not written shows.
  const std::vector<char> empty = random_values(type, c.pixels() * volume_stride, generator);
  std::vector<char> volume = empty;
  require(dwarf::correlate(cpu, type, c, at(first.data(), stride, before, type), at(second.data(), stride, before, type),
                           at(volume.data(), volume_stride, before, type)));
  const Buffer first_gpu(first), second_gpu(second), cotangent_gpu(cotangent), volume_gpu(volume);
  std::vector<std::vector<char>> answers;
  for (int run = 0; run < 2; ++run) {
    const Buffer out(empty);
    require(dwarf::gpu::correlate(nullptr, type, c, at(first_gpu.data(), stride, before, type),
                                  at(second_gpu.data(), stride, before, type),
                                  at(out.data(), volume_stride, before, type), strip));
    require(cudaDeviceSynchronize(), "forward");
    answers.push_back(out.values());
  }
  compare(strip == 8 ? "forward of 8" : "forward of 4", type, c, volume, answers[0], answers[1]);

  for (const Operand operand : {Operand::first, Operand::second}) {
    const bool is_first = operand == Operand::first;
    std::vector<char>& other = is_first ? second : first;
    const std::vector<char> start = random_values(type, c.pixels() * stride, generator);
    std::vector<char> gradient = start;
    const Map in_place = at(gradient.data(), stride, before, type);
    require(dwarf::correlate_gradient(cpu, type, c, operand, at(other.data(), stride, before, type),
                                      at(volume.data(), volume_stride, before, type),
                                      at(cotangent.data(), volume_stride, before, type), in_place, in_place));
    answers.clear();
    for (int run = 0; run < 2; ++run) {
      const Buffer out(start);
      const Map out_map = at(out.data(), stride, before, type);
      const Buffer& other_gpu = is_first ? second_gpu : first_gpu;
      require(dwarf::gpu::correlate_gradient(nullptr, type, c, operand, at(other_gpu.data(), stride, before, type),
                                             at(volume_gpu.data(), volume_stride, before, type),
                                             at(cotangent_gpu.data(), volume_stride, before, type), out_map, out_map));
      require(cudaDeviceSynchronize(), "gradient");
      answers.push_back(out.values());
    }
    compare(is_first ? "gradient by first" : "gradient by second", type, c, gradient, answers[0], answers[1]);
  }
}

void check_level(Type type, const Correlation& sizes, std::mt19937& generator) {
  const int64_t channels = dwarf::cost_volume_channels(sizes);
  const dwarf::Device cpu = {false, nullptr};
  const dwarf::Device gpu = {true, nullptr};
  std::vector<std::vector<char>> features;
  std::vector<Buffer> features_gpu;
  Map maps[4], maps_gpu[4];
  for (int i = 0; i < 4; ++i) features.push_back(random_values(type, sizes.pixels() * sizes.channels, generator));
  for (int i = 0; i < 4; ++i) {
    features_gpu.emplace_back(features[i]);
    maps[i] = {features[i].data(), sizes.channels};
    maps_gpu[i] = {features_gpu[i].data(), sizes.channels};
  }
  std::vector<char> volumes(sizes.pixels() * channels * size_of(type));
  std::vector<char> cotangent = random_values(type, sizes.pixels() * channels, generator);
  require(dwarf::cost_volumes(cpu, type, sizes, maps, {volumes.data(), channels}));
  std::vector<std::vector<char>> answers;
  for (int run = 0; run < 2; ++run) {
    const Buffer out(static_cast<int64_t>(volumes.size()));
    require(dwarf::cost_volumes(gpu, type, sizes, maps_gpu, {out.data(), channels}));
    require(cudaDeviceSynchronize(), "cost volumes");
    answers.push_back(out.values());
  }
  compare("cost volumes", type, sizes, volumes, answers[0], answers[1]);
  const int64_t scratch_bytes = sizes.pixels() * 2 * sizes.columns() * size_of(type);
  std::vector<char> scratch(scratch_bytes);
  std::vector<std::vector<char>> gradients(4, std::vector<char>(features[0].size()));
  Map gradient_maps[4];
  for (int i = 0; i < 4; ++i) gradient_maps[i] = {gradients[i].data(), sizes.channels};
  require(dwarf::cost_volumes_gradient(cpu, type, sizes, maps, {volumes.data(), channels}, {cotangent.data(), channels},
                                       scratch.data(), gradient_maps));
  const Buffer volumes_gpu(volumes), cotangent_gpu(cotangent), scratch_gpu(scratch_bytes);
  std::vector<std::vector<char>> found[2];
  for (auto& run : found) {
    std::vector<Buffer> outs;
    Map out_maps[4];
    for (int i = 0; i < 4; ++i) {
      outs.emplace_back(static_cast<int64_t>(features[0].size()));
      out_maps[i] = {outs[i].data(), sizes.channels};
    }
    require(dwarf::cost_volumes_gradient(gpu, type, sizes, maps_gpu, {volumes_gpu.data(), channels},
                                         {cotangent_gpu.data(), channels}, scratch_gpu.data(), out_maps));
    require(cudaDeviceSynchronize(), "gradient of the cost volumes");
    for (const Buffer& out : outs) run.push_back(out.values());
  }
  for (int i = 0; i < 4; ++i) compare("gradient of the cost volumes", type, sizes, gradients[i], found[0][i], found[1][i]);
}

int check() {
  std::mt19937 generator(1);
  const Correlation cases[] = {
      {1, 1, 1, 1, 0, 0, 0, 1.0f},   {1, 5, 33, 32, 4, 4, 0, 0.1f}, {2, 9, 17, 7, 4, 4, 0, 1.0f},
      {1, 13, 70, 64, 0, 4, 0, 0.1f}, {1, 6, 40, 9, 4, 4, 0, 0.1f}, {2, 5, 19, 9, 2, 2, 1, 0.1f},
      {1, 4, 6, 3, 6, 11, 2, 0.1f},  {1, 9, 35, 36, 3, 5, 0, 0.1f}, {3, 3, 3, 40, 1, 1, 0, 1.0f},
      {1, 10, 34, 100, 10, 10, 0, 0.1f},
  };
  int count = 0;
  for (const Type type : kTypes) {
    for (const Correlation& c : cases) {
      for (const auto& [before, after] : {std::pair<int, int>{0, 0}, {4, 8}, {3, 2}}) {
        for (const int strip : {4, 8}) {
          check_one(type, c, before, after, strip, generator);
          ++count;
        }
      }
    }
    check_level(type, {2, 7, 21, 6, 0, 2, 1, 0.1f}, generator);
    check_level(type, {1, 12, 40, 32, 0, 4, 0, 0.1f}, generator);
    check_level(type, {1, 6, 20, 196, 0, 4, 0, 1.0f}, generator);
    count += 3;
  }
  std::printf("%d cases, %d failures\n", count, failures);
  return failures != 0;
}

// The last rows of a volume of more than 2^31 elements against those of the image's last rows alone.
int check_large() {
  const Type type = Type::bfloat16;
  const Correlation whole = {1, 5184, 5120, 4, 4, 4, 0, 0.1f};
  Correlation end = whole;
  end.height = 64;
  const int64_t rows = 32;  // compared; the gradients of the part's upper ones miss neighbours
  const int64_t skipped = (whole.height - end.height) * whole.width;
  const int64_t channels = whole.volume_channels();
  size_t free_bytes = 0, all_bytes = 0;
  require(cudaMemGetInfo(&free_bytes, &all_bytes), "memory");
  if (free_bytes < size_t{6} << 30) {
    std::printf("too little memory for a large volume\n");
    return 0;
  }
  std::mt19937 generator(3);
  std::vector<char> values(whole.pixels() * whole.channels * 2);
  for (int64_t i = 0; i < whole.pixels() * whole.channels; ++i) {
    write(type, values.data(), i, static_cast<float>(generator()) * 0x1p-31f - 1.0f);
  }
  const Buffer features(values), volume(whole.pixels() * channels * 2), part(end.pixels() * channels * 2);
  const Buffer gradient(whole.pixels() * whole.channels * 2), part_gradient(end.pixels() * whole.channels * 2);
  const Map all = {features.data(), whole.channels};
  const Map last = at(features.data(), whole.channels, skipped * whole.channels, type);
  const Map all_volume = {volume.data(), channels};
  const Map last_volume = {part.data(), channels};
  const Map none = {nullptr, 0};
  require(dwarf::gpu::correlate(nullptr, type, whole, all, all, all_volume, 8));
  require(dwarf::gpu::correlate(nullptr, type, end, last, last, last_volume, 8));
  require(dwarf::gpu::correlate_gradient(nullptr, type, whole, Operand::second, all, all_volume, all_volume, none,
                                         {gradient.data(), whole.channels}));
  require(dwarf::gpu::correlate_gradient(nullptr, type, end, Operand::second, last, last_volume, last_volume, none,
                                         {part_gradient.data(), whole.channels}));
  require(cudaDeviceSynchronize(), "large volume");
  const auto same_end = [&](const Buffer& a, int64_t a_bytes, const Buffer& b, int64_t b_bytes, int64_t bytes) {
    std::vector<char> of_a(bytes), of_b(bytes);
    require(cudaMemcpy(of_a.data(), static_cast<char*>(a.data()) + a_bytes - bytes, bytes, cudaMemcpyDeviceToHost), "copy");
    require(cudaMemcpy(of_b.data(), static_cast<char*>(b.data()) + b_bytes - bytes, bytes, cudaMemcpyDeviceToHost), "copy");
    return of_a == of_b;
  };
  const bool right = same_end(volume, whole.pixels() * channels * 2, part, end.pixels() * channels * 2,
                              rows * whole.width * channels * 2);
  const bool gradient_right = same_end(gradient, whole.pixels() * whole.channels * 2, part_gradient,
                                       end.pixels() * whole.channels * 2, rows * whole.width * whole.channels * 2);
  std::printf("volume of %lld elements: %s, gradient: %s\n", static_cast<long long>(whole.pixels() * channels),
              right ? "right" : "wrong", gradient_right ? "right" : "wrong");
  return !(right && gradient_right);
}

__global__ void copy_kernel(const float4* source, float4* target, int64_t count) {
  const int64_t step = static_cast<int64_t>(gridDim.x) * blockDim.x;
  for (int64_t i = blockIdx.x * static_cast<int64_t>(blockDim.x) + threadIdx.x; i < count; i += step) target[i] = source[i];
}

// Median microseconds of one of `calls` calls in a CUDA graph, which are numbered.
double microseconds(cudaStream_t stream, int calls, const std::function<void(int)>& call) {
  cudaGraph_t graph;
  cudaGraphExec_t executable;
  call(0);
  require(cudaStreamSynchronize(stream), "first call");
  require(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal), "capture");
  for (int n = 0; n < calls; ++n) call(n);
  require(cudaStreamEndCapture(stream, &graph), "end of capture");
  require(cudaGraphInstantiateWithFlags(&executable, graph, 0), "graph");
  cudaEvent_t begin, end;
  require(cudaEventCreate(&begin), "event");
  require(cudaEventCreate(&end), "event");
  for (int n = 0; n < 3; ++n) require(cudaGraphLaunch(executable, stream), "warm-up");
  std::vector<double> times;
  for (int n = 0; n < 21; ++n) {
    require(cudaEventRecord(begin, stream), "event");
    require(cudaGraphLaunch(executable, stream), "graph");
    require(cudaEventRecord(end, stream), "event");
    require(cudaEventSynchronize(end), "event");
    float milliseconds = 0.0f;
    require(cudaEventElapsedTime(&milliseconds, begin, end), "event");
    times.push_back(1e3 * milliseconds / calls);
  }
  require(cudaGraphExecDestroy(executable), "graph");
  require(cudaGraphDestroy(graph), "graph");
  require(cudaEventDestroy(begin), "event");
  require(cudaEventDestroy(end), "event");
  std::nth_element(times.begin(), times.begin() + times.size() / 2, times.end());
  return times[times.size() / 2];
}

int time_all() {
  int card = 0;
  cudaDeviceProp properties;
  require(cudaGetDevice(&card), "no GPU");
  require(cudaGetDeviceProperties(&properties, card), "no GPU");
  cudaStream_t stream;
  require(cudaStreamCreate(&stream), "stream");

  size_t free_bytes = 0, all_bytes = 0;
  require(cudaMemGetInfo(&free_bytes, &all_bytes), "memory");
  const int64_t large = std::min<int64_t>(int64_t{1} << 30, static_cast<int64_t>(free_bytes / 8) / 16 * 16);
  double large_copy = 0.0;  // bytes read and written, GB/s
  {
    const Buffer source(large), target(large);
    require(cudaMemset(source.data(), 1, large), "memset");
    const double by_engine = microseconds(stream, 2, [&](int) {
      require(cudaMemcpyAsync(target.data(), source.data(), large, cudaMemcpyDeviceToDevice, stream), "copy");
    });
    const double by_kernel = microseconds(stream, 2, [&](int) {
      copy_kernel<<<8 * properties.multiProcessorCount, 512, 0, stream>>>(
          static_cast<const float4*>(source.data()), static_cast<float4*>(target.data()), large / 16);
    });
    large_copy = 2e-3 * large / std::min(by_engine, by_kernel);
  }
  std::printf("{\"card\": \"%s\", \"processors\": %d, \"cache_bytes\": %d, \"copy_gb_s\": %.1f}\n", properties.name,
              properties.multiProcessorCount, properties.l2CacheSize, large_copy);

  const struct {
    const char* name;
    Correlation correlation;
  } cases[] = {
      {"2D level 2", {1, 96, 320, 32, 4, 4, 0, 0.1f}},  {"2D level 3", {1, 48, 160, 64, 4, 4, 0, 0.1f}},
      {"2D level 4", {1, 24, 80, 96, 4, 4, 0, 0.1f}},   {"2D level 5", {1, 12, 40, 128, 4, 4, 0, 0.1f}},
      {"2D level 6", {1, 6, 20, 196, 4, 4, 0, 0.1f}},   {"1D level 2", {1, 96, 320, 32, 0, 4, 0, 0.1f}},
      {"1D level 3", {1, 48, 160, 64, 0, 4, 0, 0.1f}},  {"3D level 2", {1, 96, 320, 9, 4, 4, 0, 0.1f}},
      {"3D level 3", {1, 48, 160, 9, 4, 4, 0, 0.1f}},   {"2D level 2, batch 8", {8, 96, 320, 32, 4, 4, 0, 0.1f}},
  };
  std::mt19937 generator(2);
  for (const auto& each : cases) {
    const char* name = each.name;
    const Correlation& c = each.correlation;
    for (int t = 0; t < 3; ++t) {
      const Type type = kTypes[t];
      const int64_t feature_bytes = c.pixels() * c.channels * size_of(type);
      const int64_t volume_bytes = c.pixels() * c.volume_channels() * size_of(type);
      const int64_t forward_bytes = 2 * feature_bytes + volume_bytes;
      // Two gradients, each from one operand, the cotangent and the volume.
      const int64_t backward_bytes = 4 * feature_bytes + 2 * 2 * volume_bytes;
      const int64_t set_bytes = 4 * feature_bytes + 2 * volume_bytes;
      const int sets = static_cast<int>(std::clamp<int64_t>(4 * int64_t{properties.l2CacheSize} / forward_bytes + 1, 2,
                                                            std::max<int64_t>(2, static_cast<int64_t>(free_bytes) / 4 / set_bytes)));
      const std::vector<char> feature_values = random_values(type, 2 * c.pixels() * c.channels, generator);
      const std::vector<char> volume_values = random_values(type, c.pixels() * c.volume_channels(), generator);
      std::vector<Buffer> features, gradients, volumes, cotangents, copies;
      for (int n = 0; n < sets; ++n) {
        features.emplace_back(feature_values);
        gradients.emplace_back(2 * feature_bytes);
        volumes.emplace_back(volume_values);
        cotangents.emplace_back(volume_values);
        copies.emplace_back(forward_bytes);
        require(cudaMemset(copies.back().data(), 1, forward_bytes), "memset");
      }
      const auto feature = [&](int n, int which) {
        return Map{static_cast<char*>(features[n % sets].data()) + which * feature_bytes, c.channels};
      };
      const auto volume = [&](int n) { return Map{volumes[n % sets].data(), c.volume_channels()}; };
      const int calls = std::max(sets, 32);
      double forward[3];
      const int strips[] = {0, 4, 8};
      for (int s = 0; s < 3; ++s) {
        forward[s] = microseconds(stream, calls, [&](int n) {
          require(dwarf::gpu::correlate(stream, type, c, feature(n, 0), feature(n, 1), volume(n), strips[s]));
        });
      }
      const double warm = microseconds(stream, 32, [&](int) {
        require(dwarf::gpu::correlate(stream, type, c, feature(0, 0), feature(0, 1), volume(0), 0));
      });
      const Map none = {nullptr, 0};
      const double backward = microseconds(stream, calls, [&](int n) {
        for (int which = 0; which < 2; ++which) {
          const Map gradient = {static_cast<char*>(gradients[n % sets].data()) + which * feature_bytes, c.channels};
          require(dwarf::gpu::correlate_gradient(stream, type, c, which == 0 ? Operand::first : Operand::second,
                                                 feature(n, 1 - which), volume(n),
                                                 Map{cotangents[n % sets].data(), c.volume_channels()}, none, gradient));
        }
      });
      const int64_t quads = forward_bytes / 32;
      const int blocks = static_cast<int>(std::min<int64_t>((quads + 255) / 256, 16 * properties.multiProcessorCount));
      const double copy = microseconds(stream, calls, [&](int n) {
        auto* data = static_cast<float4*>(copies[n % sets].data());
        copy_kernel<<<blocks, 256, 0, stream>>>(data, data + quads, quads);
      });
      std::printf(
          "{\"case\": \"%s\", \"type\": \"%s\", \"forward_us\": %.2f, \"forward_us_strip_4\": %.2f, \"forward_us_strip_8\": %.2f, "
          "\"forward_us_in_cache\": %.2f, \"forward_bytes\": %lld, \"share_of_large_copy\": %.3f, "
          "\"copy_of_the_same_bytes_us\": %.2f, \"share_of_copy_of_the_same_bytes\": %.3f, \"backward_us\": %.2f, "
          "\"backward_share_of_large_copy\": %.3f}\n",
          name, kTypeNames[t], forward[0], forward[1], forward[2], warm, static_cast<long long>(forward_bytes),
          1e-3 * forward_bytes / forward[0] / large_copy, copy, copy / forward[0], backward,
          1e-3 * backward_bytes / backward / large_copy);
      std::fflush(stdout);
    }
  }
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  int cards = 0;
  require(cudaGetDeviceCount(&cards), "no GPU");
  const std::string mode = argc > 1 ? argv[1] : "check";
  return mode == "time" ? time_all() : mode == "large" ? check_large() : check();
}
