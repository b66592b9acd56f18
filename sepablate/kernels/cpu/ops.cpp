// The operators torch.ops.sepablate, for a CPU. Their fakes, for torch.compile and torch.export,
// are in fake.py.
#include <torch/library.h>

#include "autograd.h"
#include "batch_norm.h"
#include "convolution.h"
#include "depthwise.h"
#include "max_pool.h"

namespace sepablate {

Tensor convolution_autograd(const Tensor& x, const Tensor& weight, int64_t stride,
                            int64_t padding_height, int64_t padding_width) {
  return ConvolutionFunction::apply(x, weight, stride, padding_height, padding_width);
}

Tensor depthwise_autograd(const Tensor& x, const Tensor& weight, int64_t stride, bool relu) {
  return DepthwiseFunction::apply(x, weight, stride, relu);
}

Tensor max_pool_autograd(const Tensor& x, int64_t padding) {
  return MaxPoolFunction::apply(x, padding);
}

Tensor batch_norm_autograd(const Tensor& x, const Tensor& weight, const Tensor& bias,
                           const Tensor& running_mean, const Tensor& running_var, double momentum,
                           double eps, bool relu, const OptionalTensor& residual,
                           const OptionalTensor& num_batches_tracked) {
  return BatchNormFunction::apply(x, weight, bias, running_mean, running_var, momentum, eps, relu,
                                  residual, num_batches_tracked);
}

Tensor conv_norm_autograd(const Tensor& x, const OptionalTensor& depthwise, const Tensor& weight,
                          int64_t stride, int64_t padding_height, int64_t padding_width,
                          bool relu_first, bool relu_between, const Tensor& norm_weight,
                          const Tensor& norm_bias, const Tensor& running_mean,
                          const Tensor& running_var, double momentum, double eps, bool relu,
                          const OptionalTensor& residual,
                          const OptionalTensor& num_batches_tracked) {
  return ConvNormFunction::apply(x, depthwise, weight, stride, padding_height, padding_width,
                                 relu_first, relu_between, norm_weight, norm_bias, running_mean,
                                 running_var, momentum, eps, relu, residual, num_batches_tracked);
}

}  // namespace sepablate

TORCH_LIBRARY(sepablate, library) {
  library.set_python_module("sepablate.kernels.cpu.fake");
  library.def(
      "convolution(Tensor x, Tensor weight, int stride, int padding_height, int padding_width)"
      " -> Tensor");
  library.def(
      "convolution_input_grad(Tensor grad, Tensor x, Tensor weight, int stride,"
      " int padding_height, int padding_width) -> Tensor");
  library.def(
      "convolution_weight_grad(Tensor grad, Tensor x, Tensor weight, int stride,"
      " int padding_height, int padding_width) -> Tensor");
  library.def(
      "convolution_inference(Tensor x, Tensor weight, Tensor bias, Tensor? residual, int stride,"
      " int padding_height, int padding_width, bool relu) -> Tensor");
  library.def("depthwise(Tensor x, Tensor weight, int stride, bool relu) -> Tensor");
  library.def(
      "depthwise_backward(Tensor grad, Tensor x, Tensor weight, int stride, bool relu)"
      " -> (Tensor, Tensor)");
  library.def(
      "depthwise_inference(Tensor x, Tensor weight, Tensor? bias, int stride, bool relu,"
      " bool relu_after) -> Tensor");
  library.def("max_pool(Tensor x, int padding) -> Tensor");
  library.def("max_pool_with_indices(Tensor x, int padding) -> (Tensor, Tensor)");
  library.def(
      "max_pool_backward(Tensor grad, Tensor indices, SymInt height, SymInt width, int padding)"
      " -> Tensor");
  library.def(
      "batch_norm(Tensor x, Tensor weight, Tensor bias, Tensor(a!) running_mean,"
      " Tensor(b!) running_var, float momentum, float eps, bool relu, Tensor? residual=None,"
      " Tensor(c!)? num_batches_tracked=None) -> Tensor");
  library.def(
      "bn_forward(Tensor x, Tensor weight, Tensor bias, Tensor(a!) running_mean,"
      " Tensor(b!) running_var, float momentum, float eps, bool relu, Tensor? residual=None,"
      " Tensor(c!)? num_batches_tracked=None) -> (Tensor, Tensor, Tensor)");
  library.def(
      "bn_backward(Tensor grad, Tensor x, Tensor weight, Tensor bias, Tensor mean, Tensor rstd,"
      " bool relu) -> (Tensor, Tensor, Tensor)");
  library.def(
      "conv_norm(Tensor x, Tensor? depthwise, Tensor weight, int stride, int padding_height,"
      " int padding_width, bool relu_first, bool relu_between, Tensor norm_weight,"
      " Tensor norm_bias, Tensor(a!) running_mean, Tensor(b!) running_var, float momentum,"
      " float eps, bool relu, Tensor? residual=None, Tensor(c!)? num_batches_tracked=None)"
      " -> Tensor");
  library.def(
      "conv_norm_forward(Tensor x, Tensor? depthwise, Tensor weight, int stride,"
      " int padding_height, int padding_width, bool relu_first, bool relu_between,"
      " Tensor norm_weight, Tensor norm_bias, Tensor(a!) running_mean, Tensor(b!) running_var,"
      " float momentum, float eps, bool relu, Tensor? residual=None,"
      " Tensor(c!)? num_batches_tracked=None) -> (Tensor, Tensor, Tensor, Tensor, Tensor)");
  library.def(
      "conv_norm_backward(Tensor grad, Tensor x, Tensor? depthwise, Tensor weight, Tensor between,"
      " Tensor convolved, Tensor norm_weight, Tensor norm_bias, Tensor mean, Tensor rstd,"
      " int stride, int padding_height, int padding_width, bool relu_first, bool relu_between,"
      " bool relu, bool input_grad) -> (Tensor, Tensor, Tensor, Tensor, Tensor)");
}

TORCH_LIBRARY_IMPL(sepablate, CPU, library) {
  library.impl("convolution", TORCH_FN(sepablate::convolution_cpu));
  library.impl("convolution_input_grad", TORCH_FN(sepablate::convolution_input_grad_cpu));
  library.impl("convolution_weight_grad", TORCH_FN(sepablate::convolution_weight_grad_cpu));
  library.impl("convolution_inference", TORCH_FN(sepablate::convolution_inference_cpu));
  library.impl("depthwise", TORCH_FN(sepablate::depthwise_cpu));
  library.impl("depthwise_backward", TORCH_FN(sepablate::depthwise_backward_cpu));
  library.impl("depthwise_inference", TORCH_FN(sepablate::depthwise_inference_cpu));
  library.impl("max_pool", TORCH_FN(sepablate::max_pool_cpu));
  library.impl("max_pool_with_indices", TORCH_FN(sepablate::max_pool_with_indices_cpu));
  library.impl("max_pool_backward", TORCH_FN(sepablate::max_pool_backward_cpu));
  library.impl("batch_norm", TORCH_FN(sepablate::batch_norm_cpu));
  library.impl("bn_forward", TORCH_FN(sepablate::bn_forward_cpu));
  library.impl("bn_backward", TORCH_FN(sepablate::bn_backward_cpu));
  library.impl("conv_norm", TORCH_FN(sepablate::conv_norm_cpu));
  library.impl("conv_norm_forward", TORCH_FN(sepablate::conv_norm_forward_cpu));
  library.impl("conv_norm_backward", TORCH_FN(sepablate::conv_norm_backward_cpu));
}

TORCH_LIBRARY_IMPL(sepablate, Autograd, library) {
  library.impl("convolution", TORCH_FN(sepablate::convolution_autograd));
  library.impl("depthwise", TORCH_FN(sepablate::depthwise_autograd));
  library.impl("max_pool", TORCH_FN(sepablate::max_pool_autograd));
  library.impl("batch_norm", TORCH_FN(sepablate::batch_norm_autograd));
  library.impl("conv_norm", TORCH_FN(sepablate::conv_norm_autograd));
}
