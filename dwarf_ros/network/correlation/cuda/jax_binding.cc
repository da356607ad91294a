// The correlations as XLA FFI handlers, for JAX: DwarfCorrelation, DwarfCorrelationGradient, DwarfCostVolumes and
// DwarfCostVolumesGradient, each with Cpu or Cuda behind its name.
#include <array>
#include <cstdint>
#include <string>

#include "correlation.h"
#include "xla/ffi/api/ffi.h"

namespace dwarf {
namespace {

namespace ffi = xla::ffi;
using ffi::AnyBuffer;
using Output = ffi::Result<AnyBuffer>;

bool type_of(const AnyBuffer& buffer, Type* type) {
  switch (buffer.element_type()) {
    case ffi::DataType::F32: *type = Type::float32; return true;
    case ffi::DataType::F16: *type = Type::float16; return true;
    case ffi::DataType::BF16: *type = Type::bfloat16; return true;
    default: return false;
  }
}

Map map_of(const AnyBuffer& buffer) { return {buffer.untyped_data(), buffer.dimensions()[3]}; }
Map map_of(Output& buffer) { return map_of(*buffer); }

std::string shape_text(const AnyBuffer& buffer) {
  std::string text;
  for (const int64_t side : buffer.dimensions()) text += (text.empty() ? "" : " x ") + std::to_string(side);
  return text;
}

// Fills in the sizes and returns what is wrong with the buffers: the first `maps` are feature maps, the others volumes.
template <size_t kCount>
std::string check(const std::array<AnyBuffer, kCount>& buffers, size_t maps, bool of_cost_volumes,
                  Correlation* correlation, Type* type) {
  const std::string error = wrong_displacements(*correlation);
  if (!error.empty()) return error;
  if (!type_of(buffers[0], type)) return "correlation: expected float32, float16 or bfloat16";
  const auto shape = buffers[0].dimensions();
  if (shape.size() != 4) {
    return "correlation: input has shape " + shape_text(buffers[0]) + ", expected batch x H x W x C";
  }
  correlation->batch = shape[0];
  correlation->height = shape[1];
  correlation->width = shape[2];
  correlation->channels = shape[3];
  for (size_t i = 1; i < kCount; ++i) {
    const auto other = buffers[i].dimensions();
    bool same = other.size() == 4 && buffers[i].element_type() == buffers[0].element_type();
    for (size_t side = 0; same && side < 3; ++side) same = other[side] == shape[side];
    const int64_t volume_channels =
        of_cost_volumes ? cost_volume_channels(*correlation) : correlation->volume_channels();
    if (!same || other[3] != (i < maps ? shape[3] : volume_channels)) {
      return "correlation: input " + std::to_string(i) + " has shape " + shape_text(buffers[i]) +
             ", which does not go with " + shape_text(buffers[0]);
    }
  }
  return "";
}

ffi::Error to_error(const std::string& error) {
  return error.empty() ? ffi::Error::Success() : ffi::Error::InvalidArgument(error);
}

Correlation attributes(int64_t reach_y, int64_t reach_x, int64_t depth, float slope) {
  Correlation correlation = {};
  correlation.reach_y = reach_y;
  correlation.reach_x = reach_x;
  correlation.depth = depth;
  correlation.slope = slope;
  return correlation;
}

ffi::Error forward(Device device, AnyBuffer first, AnyBuffer second, int64_t reach_y, int64_t reach_x, int64_t depth,
                   float slope, Output volume) {
  Correlation correlation = attributes(reach_y, reach_x, depth, slope);
  Type type;
  std::string error = check(std::array{first, second, *volume}, 2, false, &correlation, &type);
  if (error.empty()) {
    error = correlate(device, type, correlation, map_of(first), map_of(second), map_of(volume));
  }
  return to_error(error);
}

ffi::Error gradient(Device device, AnyBuffer first, AnyBuffer second, AnyBuffer volume, AnyBuffer cotangent,
                    int64_t reach_y, int64_t reach_x, int64_t depth, float slope, Output of_first,
                    Output of_second) {
  Correlation correlation = attributes(reach_y, reach_x, depth, slope);
  Type type;
  const Map none = {nullptr, 0};
  std::string error = check(std::array{first, second, volume, cotangent}, 2, false, &correlation, &type);
  if (error.empty()) {
    error = correlate_gradient(device, type, correlation, Operand::first, map_of(second), map_of(volume),
                               map_of(cotangent), none, map_of(of_first));
  }
  if (error.empty()) {
    error = correlate_gradient(device, type, correlation, Operand::second, map_of(first), map_of(volume),
                               map_of(cotangent), none, map_of(of_second));
  }
  return to_error(error);
}

ffi::Error level_forward(Device device, AnyBuffer left_t0, AnyBuffer right_t0, AnyBuffer left_t1, AnyBuffer right_t1,
                         int64_t reach_x, int64_t depth, float slope, Output volumes) {
  Correlation correlation = attributes(0, reach_x, depth, slope);
  Type type;
  std::string error = check(std::array{left_t0, right_t0, left_t1, right_t1, *volumes}, 4, true, &correlation, &type);
  if (error.empty()) {
    const Map features[4] = {map_of(left_t0), map_of(right_t0), map_of(left_t1), map_of(right_t1)};
    error = cost_volumes(device, type, correlation, features, map_of(volumes));
  }
  return to_error(error);
}

ffi::Error level_gradient(Device device, AnyBuffer left_t0, AnyBuffer right_t0, AnyBuffer left_t1, AnyBuffer right_t1,
                          AnyBuffer volumes, AnyBuffer cotangent, int64_t reach_x, int64_t depth, float slope,
                          Output of_left_t0, Output of_right_t0, Output of_left_t1, Output of_right_t1,
                          Output scratch) {
  Correlation correlation = attributes(0, reach_x, depth, slope);
  Type type;
  std::string error = check(std::array{left_t0, right_t0, left_t1, right_t1, volumes, cotangent}, 4, true,
                            &correlation, &type);
  if (error.empty()) {
    const Map features[4] = {map_of(left_t0), map_of(right_t0), map_of(left_t1), map_of(right_t1)};
    const Map gradients[4] = {map_of(of_left_t0), map_of(of_right_t0), map_of(of_left_t1), map_of(of_right_t1)};
    error = cost_volumes_gradient(device, type, correlation, features, map_of(volumes), map_of(cotangent),
                                  scratch->untyped_data(), gradients);
  }
  return to_error(error);
}

Device cpu() { return {false, nullptr}; }

}  // namespace
}  // namespace dwarf

#define DWARF_CPU_HANDLER(name, function, binding)                                                      \
  XLA_FFI_DEFINE_HANDLER_SYMBOL(                                                                        \
      name##Cpu, ([](auto... arguments) { return dwarf::function(dwarf::cpu(), arguments...); }),       \
      xla::ffi::Ffi::Bind() binding)

#ifdef DWARF_CUDA
namespace dwarf {
namespace {
Device cuda(void* stream) { return {true, stream}; }
}  // namespace
}  // namespace dwarf

// The handlers only launch kernels, so that XLA may record them in a CUDA graph.
#define DWARF_CUDA_HANDLER(name, function, binding)                                                     \
  XLA_FFI_DEFINE_HANDLER_SYMBOL(                                                                        \
      name##Cuda,                                                                                       \
      ([](void* stream, auto... arguments) { return dwarf::function(dwarf::cuda(stream), arguments...); }), \
      xla::ffi::Ffi::Bind().Ctx<xla::ffi::PlatformStream<void*>>() binding,                             \
      {xla::ffi::Traits::kCmdBufferCompatible})
#else
#define DWARF_CUDA_HANDLER(name, function, binding)
#endif

#define DWARF_HANDLERS(name, function, binding) \
  DWARF_CPU_HANDLER(name, function, binding);   \
  DWARF_CUDA_HANDLER(name, function, binding)

#define DWARF_ARG .Arg<xla::ffi::AnyBuffer>()
#define DWARF_RET .Ret<xla::ffi::AnyBuffer>()
#define DWARF_LEVEL_ATTRIBUTES .Attr<int64_t>("reach_x").Attr<int64_t>("depth").Attr<float>("slope")
#define DWARF_ATTRIBUTES .Attr<int64_t>("reach_y") DWARF_LEVEL_ATTRIBUTES

DWARF_HANDLERS(DwarfCorrelation, forward, DWARF_ARG DWARF_ARG DWARF_ATTRIBUTES DWARF_RET);
DWARF_HANDLERS(DwarfCorrelationGradient, gradient,
               DWARF_ARG DWARF_ARG DWARF_ARG DWARF_ARG DWARF_ATTRIBUTES DWARF_RET DWARF_RET);
DWARF_HANDLERS(DwarfCostVolumes, level_forward,
               DWARF_ARG DWARF_ARG DWARF_ARG DWARF_ARG DWARF_LEVEL_ATTRIBUTES DWARF_RET);
DWARF_HANDLERS(DwarfCostVolumesGradient, level_gradient,
               DWARF_ARG DWARF_ARG DWARF_ARG DWARF_ARG DWARF_ARG DWARF_ARG DWARF_LEVEL_ATTRIBUTES
                   DWARF_RET DWARF_RET DWARF_RET DWARF_RET DWARF_RET);
