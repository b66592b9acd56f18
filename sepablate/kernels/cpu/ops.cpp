// The operators torch.ops.sepablate, for one thread of a CPU.
#include <torch/library.h>

#include "convolution.h"
#include "depthwise.h"
#include "max_pool.h"
#include "norm.h"

TORCH_LIBRARY(sepablate, library) {
  library.def("convolution", [](const Tensor& x, const Tensor& weight, int64_t stride, int64_t top,
                                int64_t left) {
    return Convolution::apply(x, weight, stride, top, left);
  });
  library.def("depthwise", [](const Tensor& x, const Tensor& weight, int64_t stride, bool relu) {
    return Depthwise::apply(x, weight, stride, relu);
  });
  library.def("max_pool", [](const Tensor& x, int64_t border) {
    return MaxPool::apply(x, border);
  });
  library.def(
      "norm(Tensor x, Tensor weight, Tensor bias, Tensor(a!) mean, Tensor(b!) variance,"
      " float momentum, float epsilon, bool relu, Tensor? added,"
      " Tensor(c!)? batches=None) -> Tensor",
      [](const Tensor& x, const Tensor& weight, const Tensor& bias, Tensor mean, Tensor variance,
         double momentum, double epsilon, bool relu, const std::optional<Tensor>& added,
         std::optional<Tensor> batches) {
        if (batches) ++*batches->data_ptr<int64_t>();
        return Norm::apply(x, weight, bias, mean, variance, momentum, epsilon, relu, added);
      });
}
