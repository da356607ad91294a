// CUDA kernels. Every output element is summed by one thread in a fixed order, or by several whose sums one thread adds in a
// fixed order: there are no atomics, so the same input always gives the same bits.
#include "correlation.h"

#include <cuda_pipeline.h>
#include <cuda_runtime.h>

#include <algorithm>

namespace dwarf {
namespace gpu {
namespace {

// A thread correlates a strip of neighbouring pixels with this many horizontal displacements, and a block four strips.
constexpr int kColumns = 9;
constexpr int kStrips = 4;
// What every card grants a block without being asked.
constexpr int64_t kSharedBytes = 48 * 1024;
// Blocks loop over tiles, so that any number of tiles is served.
constexpr int64_t kMostBlocks = 1 << 30;

struct Image {
  int64_t batch;
  int height, width, channels;
};

// Four channels of a pixel of a map in global memory, as floats in shared memory. Floats are copied in the background,
// until the thread waits for its pipeline.
__device__ inline void copy_quad(float4* target, const float* source) {
  __pipeline_memcpy_async(target, source, sizeof(float4));
}

template <typename T>
__device__ inline void copy_quad(float4* target, const T* source) {
  const uint2 packed = *reinterpret_cast<const uint2*>(source);
  const T values[4] = {T{static_cast<uint16_t>(packed.x & 0xffffu)}, T{static_cast<uint16_t>(packed.x >> 16)},
                       T{static_cast<uint16_t>(packed.y & 0xffffu)}, T{static_cast<uint16_t>(packed.y >> 16)}};
  *target = make_float4(to_float(values[0]), to_float(values[1]), to_float(values[2]), to_float(values[3]));
}

__device__ inline void store_quad(float* target, const float* values) {
  *reinterpret_cast<float4*>(target) = make_float4(values[0], values[1], values[2], values[3]);
}

template <typename T>
__device__ inline void store_quad(T* target, const float* values) {
  uint2 packed;
  packed.x = from_float<T>(values[0]).bits | static_cast<uint32_t>(from_float<T>(values[1]).bits) << 16;
  packed.y = from_float<T>(values[2]).bits | static_cast<uint32_t>(from_float<T>(values[3]).bits) << 16;
  *reinterpret_cast<uint2*>(target) = packed;
}

// float4s from one row of a tile to the next. Tiles are multiples of 8 pixels wide, so the odd one makes rows start in
// successive shared-memory banks: the eight threads that are served at once read eight rows.
__host__ __device__ constexpr int row_pitch(int width, int quads) { return width * quads + 1; }

// Fills a tile of rows x kWidth pixels x (1 << log2_quads) quads of channels, beginning at (y0, x0) and channel c0, with
// zero for what is outside the image or its channels.
template <typename T, int kWidth>
__device__ void fill(float4* tile, int rows, int log2_quads, const T* source, int64_t stride, bool vectors,
                     const Image& image, int64_t b, int y0, int x0, int c0) {
  const int quads = 1 << log2_quads;
  const int pitch = row_pitch(kWidth, quads);
  const int count = (rows * kWidth) << log2_quads;
#pragma unroll 4
  for (int n = threadIdx.x; n < count; n += blockDim.x) {
    const int quad = n & (quads - 1);
    const int pixel = n >> log2_quads;
    const int row = pixel / kWidth;
    const int column = pixel - row * kWidth;
    const int y = y0 + row;
    const int x = x0 + column;
    const int c = c0 + 4 * quad;
    float4* target = tile + row * pitch + (column << log2_quads) + quad;
    const bool inside = y >= 0 && y < image.height && x >= 0 && x < image.width;
    const T* from = source + ((b * image.height + y) * image.width + x) * stride + c;
    if (vectors) {
      if (inside && c < image.channels) {
        copy_quad(target, from);
      } else {
        *target = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
      }
    } else {
      float values[4];
#pragma unroll
      for (int e = 0; e < 4; ++e) {
        const bool there = inside && c + e >= 0 && c + e < image.channels;
        values[e] = there ? to_float(from[e]) : 0.0f;
      }
      *target = make_float4(values[0], values[1], values[2], values[3]);
    }
  }
}

struct Forward {
  const void* first;
  const void* second;
  void* volume;
  int64_t first_stride, second_stride, volume_stride;
  bool first_vectors, second_vectors;
  Image image;
  int reach_y, reach_x, depth;
  float scale, slope;
  // A block's threads: displaced lines (fastest) x rows of pixels x strips x slices of the channels.
  int block_lines, rows, slices;
  int log2_quads;
  int tiles_x, tiles_y, line_groups, column_groups;
  int64_t tiles;
};

template <typename T, int kStrip>
__global__ void __launch_bounds__(kStrip == 8 ? 144 : 288, 2) forward_kernel(const Forward p) {
  constexpr int kWidth = kStrips * kStrip;
  constexpr int kReached = kWidth + kColumns - 1;
  static_assert(kReached % 8 == 0, "row_pitch counts on it");
  extern __shared__ float4 shared[];

  const int line = threadIdx.x % p.block_lines;
  const int row = threadIdx.x / p.block_lines % p.rows;
  const int strip = threadIdx.x / (p.block_lines * p.rows) % kStrips;
  const int slice = threadIdx.x / (p.block_lines * p.rows * kStrips);

  const int quads = 1 << p.log2_quads;
  const int reached_rows = p.rows + p.block_lines - 1;
  const int first_size = p.rows * row_pitch(kWidth, quads);
  const int stage_size = first_size + reached_rows * row_pitch(kReached, quads);
  const int chunks = (p.image.channels + 4 * quads - 1) >> (2 + p.log2_quads);
  const int all_lines = 2 * p.reach_y + 1;
  const int all_columns = 2 * p.reach_x + 1;

  for (int64_t tile = blockIdx.x; tile < p.tiles; tile += gridDim.x) {
    int64_t rest = tile;
    const int x0 = static_cast<int>(rest % p.tiles_x) * kWidth;
    rest /= p.tiles_x;
    const int y0 = static_cast<int>(rest % p.tiles_y) * p.rows;
    rest /= p.tiles_y;
    const int column0 = static_cast<int>(rest % p.column_groups) * kColumns;
    rest /= p.column_groups;
    const int line0 = static_cast<int>(rest % p.line_groups) * p.block_lines;
    rest /= p.line_groups;
    const int layer = static_cast<int>(rest % (2 * p.depth + 1));
    const int64_t b = rest / (2 * p.depth + 1);

    const auto load = [&](int chunk) {
      float4* stage = shared + (chunk & 1) * stage_size;
      const int c0 = chunk << (2 + p.log2_quads);
      fill<T, kWidth>(stage, p.rows, p.log2_quads, static_cast<const T*>(p.first), p.first_stride,
                      p.first_vectors, p.image, b, y0, x0, c0);
      fill<T, kReached>(stage + first_size, reached_rows, p.log2_quads, static_cast<const T*>(p.second),
                        p.second_stride, p.second_vectors, p.image, b, y0 + line0 - p.reach_y,
                        x0 + column0 - p.reach_x, c0 + layer - p.depth);
    };

    float sums[kStrip][kColumns];
#pragma unroll
    for (int s = 0; s < kStrip; ++s) {
#pragma unroll
      for (int i = 0; i < kColumns; ++i) sums[s][i] = 0.0f;
    }

    // Two chunks of channels are under way at any time. A group is committed for each chunk, even one beyond the last, so
    // that waiting for all but the newest group is waiting for the chunk that comes next.
    load(0);
    __pipeline_commit();
    if (chunks > 1) load(1);
    __pipeline_commit();
    for (int chunk = 0; chunk < chunks; ++chunk) {
      __pipeline_wait_prior(1);
      __syncthreads();
      const float4* stage = shared + (chunk & 1) * stage_size;
      const float4* first = stage + row * row_pitch(kWidth, quads) + ((strip * kStrip) << p.log2_quads);
      const float4* second = stage + first_size + (row + line) * row_pitch(kReached, quads) +
                             ((strip * kStrip) << p.log2_quads);
      const int left = (p.image.channels - (chunk << (2 + p.log2_quads)) + 3) >> 2;
      const int used = left < quads ? left : quads;
      for (int quad = slice; quad < used; quad += p.slices) {
        float4 a[kStrip];
#pragma unroll
        for (int s = 0; s < kStrip; ++s) a[s] = first[(s << p.log2_quads) + quad];
#pragma unroll
        for (int reached = 0; reached < kStrip + kColumns - 1; ++reached) {
          const float4 value = second[(reached << p.log2_quads) + quad];
#pragma unroll
          for (int s = 0; s < kStrip; ++s) {
            const int i = reached - s;
            if (i >= 0 && i < kColumns) {
              sums[s][i] = fmaf(a[s].x, value.x, sums[s][i]);
              sums[s][i] = fmaf(a[s].y, value.y, sums[s][i]);
              sums[s][i] = fmaf(a[s].z, value.z, sums[s][i]);
              sums[s][i] = fmaf(a[s].w, value.w, sums[s][i]);
            }
          }
        }
      }
      __syncthreads();
      if (chunk + 2 < chunks) load(chunk + 2);
      __pipeline_commit();
    }

    // Through shared memory, so that neighbouring threads write neighbouring channels.
    const int columns = all_columns - column0 < kColumns ? all_columns - column0 : kColumns;
    const int lines = all_lines - line0 < p.block_lines ? all_lines - line0 : p.block_lines;
    const int per_pixel = lines * columns;
    const int slice_size = p.rows * kWidth * per_pixel;
    float* staged = reinterpret_cast<float*>(shared);
    if (line < lines) {
      float* target =
          staged + slice * slice_size + (row * kWidth + strip * kStrip) * per_pixel + line * columns;
#pragma unroll
      for (int s = 0; s < kStrip; ++s) {
#pragma unroll
        for (int i = 0; i < kColumns; ++i) {
          if (i < columns) target[s * per_pixel + i] = sums[s][i];
        }
      }
    }
    __syncthreads();

    T* volume = static_cast<T*>(p.volume) + (static_cast<int64_t>(layer) * all_lines + line0) * all_columns + column0;
    const int pixel_step = blockDim.x / per_pixel;
    const int channel_step = blockDim.x - pixel_step * per_pixel;
    int pixel = threadIdx.x / per_pixel;
    int channel = threadIdx.x - pixel * per_pixel;
    while (pixel < p.rows * kWidth) {
      const int y = y0 + pixel / kWidth;
      const int x = x0 + pixel % kWidth;
      if (y < p.image.height && x < p.image.width) {
        float value = 0.0f;
        for (int s = 0; s < p.slices; ++s) value += staged[s * slice_size + pixel * per_pixel + channel];
        value *= p.scale;
        value = value > 0.0f ? value : value * p.slope;
        const int to = columns == all_columns ? channel : channel / columns * all_columns + channel % columns;
        volume[((b * p.image.height + y) * p.image.width + x) * p.volume_stride + to] = from_float<T>(value);
      }
      pixel += pixel_step;
      channel += channel_step;
      if (channel >= per_pixel) {
        channel -= per_pixel;
        ++pixel;
      }
    }
    __syncthreads();
  }
}

// The tile of pixels, quads of channels and lines of displacements of a block of the gradient kernel.
constexpr int kRows = 4;
constexpr int kGradientStrip = 4;
constexpr int kGradientWidth = kStrips * kGradientStrip;
constexpr int kGradientReached = kGradientWidth + kColumns - 1;
constexpr int kLog2Quads = 3;
constexpr int kQuads = 1 << kLog2Quads;
constexpr int kLines = 3;
constexpr int kGradientThreads = kQuads * kStrips * kRows;
constexpr int kOtherSize = (kRows + kLines - 1) * row_pitch(kGradientReached, kQuads);
constexpr int kWeightsSize = kLines * kColumns * kRows * kStrips;
static_assert((kOtherSize + kWeightsSize) * sizeof(float4) <= kSharedBytes, "too much shared memory");
static_assert(kGradientStrip == 4, "a strip's weights are one float4");

struct Backward {
  const void* other;
  const void* volume;
  const void* cotangent;
  const void* base;
  void* gradient;
  int64_t other_stride, volume_stride, cotangent_stride, base_stride, gradient_stride;
  bool other_vectors, gradient_vectors;
  Image image;
  int reach_y, reach_x, depth;
  float scale, slope;
  int tiles_x, tiles_y, chunks;
  int64_t tiles;
};

// Cotangents of the products that each pixel of the tile takes part in: weights[line][column][row][x] for the displacement
// of line0 + line and column0 + column, of the pixel itself for the first operand, of the displaced pixel for the second.
template <typename T, bool kSecond>
__device__ void fill_weights(float* weights, const Backward& p, int64_t b, int y0, int x0, int layer, int line0,
                             int lines, int column0, int columns) {
  const int all_lines = 2 * p.reach_y + 1;
  const int all_columns = 2 * p.reach_x + 1;
  // Neighbouring threads read neighbouring channels, of all pixels that hold any of the tile's.
  constexpr int kPixels = kSecond ? kGradientReached : kGradientWidth;
  const int count = lines * kRows * kPixels * kColumns;
#pragma unroll 2
  for (int n = threadIdx.x; n < count; n += kGradientThreads) {
    const int i = n % kColumns;
    const int pixel = n / kColumns % kPixels;
    const int row = n / (kColumns * kPixels) % kRows;
    const int line = n / (kColumns * kPixels * kRows);
    const int column = kSecond ? pixel - i : pixel;
    if (column < 0 || column >= kGradientWidth) continue;
    float weight = 0.0f;
    int y = y0 + row;
    int x = x0 + column;
    int channel = (layer * all_lines + line0 + line) * all_columns + column0 + i;
    if (kSecond) {
      y += line0 + line - p.reach_y;
      x += column0 + i - p.reach_x;
      channel = (2 * p.depth + 1) * all_lines * all_columns - 1 - channel;
    }
    if (i < columns && y >= 0 && y < p.image.height && x >= 0 && x < p.image.width) {
      const int64_t source = (b * p.image.height + y) * p.image.width + x;
      weight = to_float(static_cast<const T*>(p.cotangent)[source * p.cotangent_stride + channel]);
      if (p.slope != 1.0f &&
          !(to_float(static_cast<const T*>(p.volume)[source * p.volume_stride + channel]) > 0.0f)) {
        weight *= p.slope;
      }
    }
    weights[((line * kColumns + i) * kRows + row) * kGradientWidth + column] = weight;
  }
}

__device__ inline void add_scaled(float4& sum, float weight, const float4& value) {
  sum.x = fmaf(weight, value.x, sum.x);
  sum.y = fmaf(weight, value.y, sum.y);
  sum.z = fmaf(weight, value.z, sum.z);
  sum.w = fmaf(weight, value.w, sum.w);
}

template <typename T, bool kSecond>
__global__ void __launch_bounds__(kGradientThreads, 4) backward_kernel(const Backward p) {
  extern __shared__ float4 shared[];
  float4* other = shared;
  float4* weights = shared + kOtherSize;

  const int quad = threadIdx.x % kQuads;
  const int strip = threadIdx.x / kQuads % kStrips;
  const int row = threadIdx.x / (kQuads * kStrips);
  const int all_lines = 2 * p.reach_y + 1;
  const int all_columns = 2 * p.reach_x + 1;

  for (int64_t tile = blockIdx.x; tile < p.tiles; tile += gridDim.x) {
    int64_t rest = tile;
    const int c0 = static_cast<int>(rest % p.chunks) * 4 * kQuads;
    rest /= p.chunks;
    const int x0 = static_cast<int>(rest % p.tiles_x) * kGradientWidth;
    rest /= p.tiles_x;
    const int y0 = static_cast<int>(rest % p.tiles_y) * kRows;
    const int64_t b = rest / p.tiles_y;

    float4 sums[kGradientStrip];
#pragma unroll
    for (int s = 0; s < kGradientStrip; ++s) sums[s] = make_float4(0.0f, 0.0f, 0.0f, 0.0f);

    for (int layer = 0; layer < 2 * p.depth + 1; ++layer) {
      for (int line0 = 0; line0 < all_lines; line0 += kLines) {
        const int lines = all_lines - line0 < kLines ? all_lines - line0 : kLines;
        for (int column0 = 0; column0 < all_columns; column0 += kColumns) {
          const int columns = all_columns - column0 < kColumns ? all_columns - column0 : kColumns;
          fill<T, kGradientReached>(other, kRows + lines - 1, kLog2Quads, static_cast<const T*>(p.other),
                                    p.other_stride, p.other_vectors, p.image, b, y0 + line0 - p.reach_y,
                                    x0 + column0 - p.reach_x, c0 + layer - p.depth);
          __pipeline_commit();
          fill_weights<T, kSecond>(reinterpret_cast<float*>(weights), p, b, y0, x0, layer, line0, lines, column0,
                                   columns);
          __pipeline_wait_prior(0);
          __syncthreads();
          for (int line = 0; line < lines; ++line) {
            const float4* reached = other + (row + line) * row_pitch(kGradientReached, kQuads) +
                                    strip * kGradientStrip * kQuads + quad;
            const float4* of_strip = weights + (line * kColumns * kRows + row) * kStrips + strip;
            float4 values[kGradientStrip];
#pragma unroll
            for (int s = 0; s < kGradientStrip - 1; ++s) values[s] = reached[s * kQuads];
#pragma unroll
            for (int i = 0; i < kColumns; ++i) {
              values[(i + 3) % 4] = reached[(i + 3) * kQuads];
              const float4 weight = of_strip[i * kRows * kStrips];
              add_scaled(sums[0], weight.x, values[i % 4]);
              add_scaled(sums[1], weight.y, values[(i + 1) % 4]);
              add_scaled(sums[2], weight.z, values[(i + 2) % 4]);
              add_scaled(sums[3], weight.w, values[(i + 3) % 4]);
            }
          }
          __syncthreads();
        }
      }
    }

    const int y = y0 + row;
    const int c = c0 + 4 * quad;
    if (y < p.image.height && c < p.image.channels) {
#pragma unroll
      for (int s = 0; s < kGradientStrip; ++s) {
        const int x = x0 + strip * kGradientStrip + s;
        if (x < p.image.width) {
          const int64_t pixel = (b * p.image.height + y) * p.image.width + x;
          const T* base = static_cast<const T*>(p.base);
          T* gradient = static_cast<T*>(p.gradient) + pixel * p.gradient_stride + c;
          float values[4] = {sums[s].x, sums[s].y, sums[s].z, sums[s].w};
#pragma unroll
          for (int e = 0; e < 4; ++e) {
            const bool started = base != nullptr && c + e < p.image.channels;
            const float before = started ? to_float(base[pixel * p.base_stride + c + e]) : 0.0f;
            values[e] = before + p.scale * values[e];
          }
          if (p.gradient_vectors) {
            store_quad(gradient, values);
          } else {
#pragma unroll
            for (int e = 0; e < 4; ++e) {
              if (c + e < p.image.channels) gradient[e] = from_float<T>(values[e]);
            }
          }
        }
      }
    }
  }
}

int64_t ceil_divide(int64_t a, int64_t b) { return (a + b - 1) / b; }

// Whether the quads of every pixel can be read or written as one word.
template <typename T>
bool holds_vectors(Map map, int64_t channels) {
  const auto address = reinterpret_cast<uintptr_t>(map.data);
  return channels % 4 == 0 && map.stride % 4 == 0 && address % (4 * sizeof(T)) == 0;
}

std::string error_of(cudaError_t status) {
  if (status == cudaSuccess) return "";
  cudaGetLastError();
  return std::string("correlation: CUDA: ") + cudaGetErrorString(status);
}

template <typename P>
std::string launch(void (*kernel)(P), P parameters, int64_t threads, int64_t shared_bytes, void* stream) {
  if (shared_bytes > kSharedBytes) {
    return "correlation: a block needs " + std::to_string(shared_bytes) + " B of shared memory";
  }
  const dim3 grid(static_cast<unsigned>(std::min(parameters.tiles, kMostBlocks)));
  void* arguments[] = {&parameters};
  return error_of(cudaLaunchKernel(kernel, grid, dim3(static_cast<unsigned>(threads)), arguments,
                                   static_cast<size_t>(shared_bytes), static_cast<cudaStream_t>(stream)));
}

Image image_of(const Correlation& c) {
  return {c.batch, static_cast<int>(c.height), static_cast<int>(c.width), static_cast<int>(c.channels)};
}

template <typename T, int kStrip>
std::string launch_forward(void* stream, const Correlation& c, Map first, Map second, Map volume) {
  constexpr int kWidth = kStrips * kStrip;
  Forward p;
  p.first = first.data;
  p.second = second.data;
  p.volume = volume.data;
  p.first_stride = first.stride;
  p.second_stride = second.stride;
  p.volume_stride = volume.stride;
  p.first_vectors = holds_vectors<T>(first, c.channels);
  p.second_vectors = c.depth == 0 && holds_vectors<T>(second, c.channels);
  p.image = image_of(c);
  p.reach_y = static_cast<int>(c.reach_y);
  p.reach_x = static_cast<int>(c.reach_x);
  p.depth = static_cast<int>(c.depth);
  p.scale = 1.0f / static_cast<float>(c.channels);
  p.slope = c.slope;
  p.block_lines = static_cast<int>(std::min<int64_t>(c.lines(), 9));
  p.rows = p.block_lines > 3 ? 4 : 8;
  p.log2_quads = kStrip == 8 ? 1 : 2;
  while (p.log2_quads > 0 && 4 << (p.log2_quads - 1) >= c.channels) --p.log2_quads;
  p.slices = kStrip == 8 ? 1 : p.block_lines == 1 ? 4 : 2;
  p.slices = std::min(p.slices, 1 << p.log2_quads);
  p.tiles_x = static_cast<int>(ceil_divide(c.width, kWidth));
  p.tiles_y = static_cast<int>(ceil_divide(c.height, p.rows));
  p.line_groups = static_cast<int>(ceil_divide(c.lines(), p.block_lines));
  p.column_groups = static_cast<int>(ceil_divide(c.columns(), kColumns));
  p.tiles = int64_t{1} * p.tiles_x * p.tiles_y * p.line_groups * p.column_groups * (2 * c.depth + 1) * c.batch;
  const int quads = 1 << p.log2_quads;
  const int64_t stage = p.rows * row_pitch(kWidth, quads) +
                        (p.rows + p.block_lines - 1) * row_pitch(kWidth + kColumns - 1, quads);
  const int64_t staged = int64_t{p.slices} * p.rows * kWidth * p.block_lines * kColumns;
  const int64_t shared_bytes =
      std::max<int64_t>(2 * stage * sizeof(float4), staged * sizeof(float));
  return launch(forward_kernel<T, kStrip>, p, int64_t{p.block_lines} * p.rows * kStrips * p.slices, shared_bytes,
                stream);
}

// Strips of 8 pixels read shared memory less often; strips of 4 make four times as many threads for small images.
int suitable_strip(const Correlation& c) {
  if (c.lines() < 5) return 4;
  int card = 0;
  int processors = 0;
  if (cudaGetDevice(&card) != cudaSuccess ||
      cudaDeviceGetAttribute(&processors, cudaDevAttrMultiProcessorCount, card) != cudaSuccess) {
    return 4;
  }
  const int64_t blocks = ceil_divide(c.width, 8 * kStrips) * ceil_divide(c.height, 4) * c.batch *
                         ceil_divide(c.lines(), 9) * ceil_divide(c.columns(), kColumns) * (2 * c.depth + 1);
  return 2 * blocks >= 3 * processors ? 8 : 4;
}

template <typename T>
std::string forward(void* stream, const Correlation& c, Map first, Map second, Map volume, int strip) {
  if (strip == 0) strip = suitable_strip(c);
  if (strip == 8 && c.lines() < 5) strip = 4;
  return strip == 8 ? launch_forward<T, 8>(stream, c, first, second, volume)
                    : launch_forward<T, 4>(stream, c, first, second, volume);
}

template <typename T>
std::string backward(void* stream, const Correlation& c, Operand operand, Map other, Map volume, Map cotangent,
                     Map base, Map gradient) {
  Backward p;
  p.other = other.data;
  p.volume = volume.data;
  p.cotangent = cotangent.data;
  p.base = base.data;
  p.gradient = gradient.data;
  p.other_stride = other.stride;
  p.volume_stride = volume.stride;
  p.cotangent_stride = cotangent.stride;
  p.base_stride = base.stride;
  p.gradient_stride = gradient.stride;
  p.other_vectors = c.depth == 0 && holds_vectors<T>(other, c.channels);
  p.gradient_vectors = holds_vectors<T>(gradient, c.channels);
  p.image = image_of(c);
  p.reach_y = static_cast<int>(c.reach_y);
  p.reach_x = static_cast<int>(c.reach_x);
  p.depth = static_cast<int>(c.depth);
  p.scale = 1.0f / static_cast<float>(c.channels);
  p.slope = c.slope;
  p.tiles_x = static_cast<int>(ceil_divide(c.width, kGradientWidth));
  p.tiles_y = static_cast<int>(ceil_divide(c.height, kRows));
  p.chunks = static_cast<int>(ceil_divide(c.channels, 4 * kQuads));
  p.tiles = int64_t{1} * p.chunks * p.tiles_x * p.tiles_y * c.batch;
  const int64_t shared_bytes = (kOtherSize + kWeightsSize) * sizeof(float4);
  return operand == Operand::first
             ? launch(backward_kernel<T, false>, p, kGradientThreads, shared_bytes, stream)
             : launch(backward_kernel<T, true>, p, kGradientThreads, shared_bytes, stream);
}

}  // namespace

std::string correlate(void* stream, Type type, const Correlation& c, Map first, Map second, Map volume, int strip) {
  switch (type) {
    case Type::float16: return forward<Half>(stream, c, first, second, volume, strip);
    case Type::bfloat16: return forward<BFloat16>(stream, c, first, second, volume, strip);
    default: return forward<float>(stream, c, first, second, volume, strip);
  }
}

std::string correlate_gradient(void* stream, Type type, const Correlation& c, Operand operand, Map other, Map volume,
                               Map cotangent, Map base, Map gradient) {
  switch (type) {
    case Type::float16: return backward<Half>(stream, c, operand, other, volume, cotangent, base, gradient);
    case Type::bfloat16: return backward<BFloat16>(stream, c, operand, other, volume, cotangent, base, gradient);
    default: return backward<float>(stream, c, operand, other, volume, cotangent, base, gradient);
  }
}

}  // namespace gpu
}  // namespace dwarf
