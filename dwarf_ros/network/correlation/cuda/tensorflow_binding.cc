// The correlations as TensorFlow ops. Their gradients are ops as well, which Python registers.
#include <array>
#include <cmath>
#include <string>

#include "correlation.h"
#include "tensorflow/core/framework/op.h"
#include "tensorflow/core/framework/op_kernel.h"
#include "tensorflow/core/framework/shape_inference.h"
#ifdef DWARF_CUDA
#include "xla/stream_executor/stream.h"
#endif

namespace dwarf {
namespace {

using tensorflow::OpKernel;
using tensorflow::OpKernelConstruction;
using tensorflow::OpKernelContext;
using tensorflow::Tensor;
using tensorflow::TensorShape;
using tensorflow::shape_inference::DimensionHandle;
using tensorflow::shape_inference::InferenceContext;
using tensorflow::shape_inference::ShapeHandle;

// Of an op, or of a node that shapes are inferred for.
template <typename Context>
absl::Status read_attributes(Context* context, bool of_cost_volumes, Correlation* correlation) {
  *correlation = {};
  if (!of_cost_volumes) TF_RETURN_IF_ERROR(context->GetAttr("reach_y", &correlation->reach_y));
  TF_RETURN_IF_ERROR(context->GetAttr("reach_x", &correlation->reach_x));
  TF_RETURN_IF_ERROR(context->GetAttr("depth", &correlation->depth));
  TF_RETURN_IF_ERROR(context->GetAttr("slope", &correlation->slope));
  const std::string error = wrong_displacements(*correlation);
  return error.empty() ? absl::OkStatus() : absl::InvalidArgumentError(error);
}

int64_t channels_of(const Correlation& correlation, bool of_cost_volumes) {
  return of_cost_volumes ? cost_volume_channels(correlation) : correlation.volume_channels();
}

template <bool kCostVolumes>
absl::Status infer_forward(InferenceContext* context) {
  Correlation correlation;
  TF_RETURN_IF_ERROR(read_attributes(context, kCostVolumes, &correlation));
  ShapeHandle shape;
  TF_RETURN_IF_ERROR(context->WithRank(context->input(0), 4, &shape));
  for (int i = 1; i < context->num_inputs(); ++i) {
    TF_RETURN_IF_ERROR(context->Merge(shape, context->input(i), &shape));
  }
  const DimensionHandle channels = context->MakeDim(channels_of(correlation, kCostVolumes));
  TF_RETURN_IF_ERROR(context->ReplaceDim(shape, 3, channels, &shape));
  context->set_output(0, shape);
  return absl::OkStatus();
}

absl::Status infer_gradient(InferenceContext* context) {
  for (int i = 0; i < context->num_outputs(); ++i) context->set_output(i, context->input(i));
  return absl::OkStatus();
}

REGISTER_OP("DwarfCorrelation")
    .Attr("T: {float, half, bfloat16}")
    .Attr("reach_y: int")
    .Attr("reach_x: int")
    .Attr("depth: int")
    .Attr("slope: float")
    .Input("first: T")
    .Input("second: T")
    .Output("volume: T")
    .SetShapeFn(infer_forward<false>);

REGISTER_OP("DwarfCorrelationGradient")
    .Attr("T: {float, half, bfloat16}")
    .Attr("reach_y: int")
    .Attr("reach_x: int")
    .Attr("depth: int")
    .Attr("slope: float")
    .Input("first: T")
    .Input("second: T")
    .Input("volume: T")
    .Input("cotangent: T")
    .Output("of_first: T")
    .Output("of_second: T")
    .SetShapeFn(infer_gradient);

REGISTER_OP("DwarfCostVolumes")
    .Attr("T: {float, half, bfloat16}")
    .Attr("reach_x: int")
    .Attr("depth: int")
    .Attr("slope: float")
    .Input("left_t0: T")
    .Input("right_t0: T")
    .Input("left_t1: T")
    .Input("right_t1: T")
    .Output("volumes: T")
    .SetShapeFn(infer_forward<true>);

REGISTER_OP("DwarfCostVolumesGradient")
    .Attr("T: {float, half, bfloat16}")
    .Attr("reach_x: int")
    .Attr("depth: int")
    .Attr("slope: float")
    .Input("left_t0: T")
    .Input("right_t0: T")
    .Input("left_t1: T")
    .Input("right_t1: T")
    .Input("volumes: T")
    .Input("cotangent: T")
    .Output("of_left_t0: T")
    .Output("of_right_t0: T")
    .Output("of_left_t1: T")
    .Output("of_right_t1: T")
    .SetShapeFn(infer_gradient);

Type type_of(const Tensor& tensor) {
  switch (tensor.dtype()) {
    case tensorflow::DT_HALF: return Type::float16;
    case tensorflow::DT_BFLOAT16: return Type::bfloat16;
    default: return Type::float32;
  }
}

Map map_of(const Tensor& tensor) {
  return {const_cast<char*>(tensor.tensor_data().data()), tensor.dim_size(3)};
}

template <bool kGpu>
Device device_of(OpKernelContext* context) {
#ifdef DWARF_CUDA
  if constexpr (kGpu) {
    return {true, context->op_device_context()->stream()->platform_specific_handle().stream};
  }
#endif
  return {false, nullptr};
}

template <bool kGpu, bool kCostVolumes, bool kGradient>
class CorrelationKernel : public OpKernel {
 public:
  explicit CorrelationKernel(OpKernelConstruction* context) : OpKernel(context) {
    OP_REQUIRES_OK(context, read_attributes(context, kCostVolumes, &attributes_));
  }

  void Compute(OpKernelContext* context) override {
    constexpr int kMaps = kCostVolumes ? 4 : 2;
    const Tensor& first = context->input(0);
    const TensorShape& shape = first.shape();
    OP_REQUIRES(context, shape.dims() == 4,
                absl::InvalidArgumentError("correlation: input has shape " + shape.DebugString() +
                                           ", expected batch x H x W x C"));
    Correlation correlation = attributes_;
    correlation.batch = shape.dim_size(0);
    correlation.height = shape.dim_size(1);
    correlation.width = shape.dim_size(2);
    correlation.channels = shape.dim_size(3);
    TensorShape volume_shape = shape;
    volume_shape.set_dim(3, channels_of(correlation, kCostVolumes));
    for (int i = 1; i < context->num_inputs(); ++i) {
      const TensorShape& expected = i < kMaps ? shape : volume_shape;
      OP_REQUIRES(context, context->input(i).shape() == expected,
                  absl::InvalidArgumentError("correlation: input " + std::to_string(i) + " has shape " +
                                             context->input(i).shape().DebugString() + ", expected " +
                                             expected.DebugString()));
    }
    std::array<Map, 4> features{};
    for (int i = 0; i < kMaps; ++i) features[i] = map_of(context->input(i));
    const Device device = device_of<kGpu>(context);
    const Type type = type_of(first);
    std::string error;
    if constexpr (!kGradient) {
      Tensor* volume = nullptr;
      OP_REQUIRES_OK(context, context->allocate_output(0, volume_shape, &volume));
      if (volume->NumElements() == 0) return;
      error = kCostVolumes ? cost_volumes(device, type, correlation, features.data(), map_of(*volume))
                           : correlate(device, type, correlation, features[0], features[1], map_of(*volume));
    } else {
      std::array<Map, 4> gradients{};
      for (int i = 0; i < kMaps; ++i) {
        Tensor* gradient = nullptr;
        OP_REQUIRES_OK(context, context->allocate_output(i, shape, &gradient));
        gradients[i] = map_of(*gradient);
      }
      if (first.NumElements() == 0) return;
      const Map volume = map_of(context->input(kMaps));
      const Map cotangent = map_of(context->input(kMaps + 1));
      if constexpr (kCostVolumes) {
        Tensor scratch;
        TensorShape scratch_shape = shape;
        scratch_shape.set_dim(3, 2 * correlation.columns());
        OP_REQUIRES_OK(context, context->allocate_temp(first.dtype(), scratch_shape, &scratch));
        error = cost_volumes_gradient(device, type, correlation, features.data(), volume, cotangent,
                                      map_of(scratch).data, gradients.data());
      } else {
        const Map none = {nullptr, 0};
        error = correlate_gradient(device, type, correlation, Operand::first, features[1], volume, cotangent, none,
                                   gradients[0]);
        if (error.empty()) {
          error = correlate_gradient(device, type, correlation, Operand::second, features[0], volume, cotangent,
                                     none, gradients[1]);
        }
      }
    }
    OP_REQUIRES(context, error.empty(), absl::InternalError(error));
  }

 private:
  Correlation attributes_;
};

#define DWARF_REGISTER(device, gpu)                                                         \
  REGISTER_KERNEL_BUILDER(Name("DwarfCorrelation").Device(device),                          \
                          CorrelationKernel<gpu, false, false>);                            \
  REGISTER_KERNEL_BUILDER(Name("DwarfCorrelationGradient").Device(device),                  \
                          CorrelationKernel<gpu, false, true>);                             \
  REGISTER_KERNEL_BUILDER(Name("DwarfCostVolumes").Device(device),                          \
                          CorrelationKernel<gpu, true, false>);                             \
  REGISTER_KERNEL_BUILDER(Name("DwarfCostVolumesGradient").Device(device),                  \
                          CorrelationKernel<gpu, true, true>);

DWARF_REGISTER(tensorflow::DEVICE_CPU, false)
#ifdef DWARF_CUDA
DWARF_REGISTER(tensorflow::DEVICE_GPU, true)
#endif

}  // namespace
}  // namespace dwarf
