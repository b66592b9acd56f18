// The autograd kernels: each calls its operator again below autograd, saves what the backward
// operator needs, and calls that in the backward pass. Activations are converted to bf16 and
// channels_last here, once for both passes.
#pragma once

#include <ATen/core/dispatch/Dispatcher.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/csrc/autograd/variable.h>

#include <tuple>

#include "conv_norm.h"

namespace sepablate {

using c10::SymInt;
using torch::autograd::AutogradContext;
using torch::autograd::Function;
using torch::autograd::tensor_list;
using BelowAutograd = at::AutoDispatchBelowADInplaceOrView;

template <class Signature> auto find_operator(const char* name) {
  return c10::Dispatcher::singleton().findSchemaOrThrow(name, "").typed<Signature>();
}

// Double backward would silently see constants, because the backward operators record no gradient.
inline void check_first_order(const char* name) {
  TORCH_CHECK(!at::GradMode::is_enabled(), name,
              ": gradients of gradients (create_graph=True) are not implemented");
}

struct DepthwiseFunction : Function<DepthwiseFunction> {
  static Tensor forward(AutogradContext* ctx, const Tensor& input, const Tensor& weight,
                        int64_t stride, bool relu) {
    static const auto op = find_operator<Tensor(const Tensor&, const Tensor&, int64_t, bool)>(
        "sepablate::depthwise");
    BelowAutograd guard;
    Tensor x = channels_last(input);
    ctx->save_for_backward({x, weight});
    ctx->saved_data["stride"] = stride;
    ctx->saved_data["relu"] = relu;
    return op.call(x, weight, stride, relu);
  }

  static tensor_list backward(AutogradContext* ctx, tensor_list grads) {
    static const auto op = find_operator<std::tuple<Tensor, Tensor>(
        const Tensor&, const Tensor&, const Tensor&, int64_t, bool)>(
        "sepablate::depthwise_backward");
    check_first_order("depthwise");
    BelowAutograd guard;
    auto saved = ctx->get_saved_variables();
    auto [dx, dweight] = op.call(grads[0], saved[0], saved[1], ctx->saved_data["stride"].toInt(),
                                 ctx->saved_data["relu"].toBool());
    return {dx, dweight, Tensor(), Tensor()};
  }
};

struct ConvolutionFunction : Function<ConvolutionFunction> {
  static Tensor forward(AutogradContext* ctx, const Tensor& input, const Tensor& weight,
                        int64_t stride, int64_t padding_height, int64_t padding_width) {
    static const auto op =
        find_operator<Tensor(const Tensor&, const Tensor&, int64_t, int64_t, int64_t)>(
            "sepablate::convolution");
    BelowAutograd guard;
    Tensor x = channels_last(input);
    ctx->save_for_backward({x, weight});
    ctx->saved_data["geometry"] = std::vector<int64_t>{stride, padding_height, padding_width};
    return op.call(x, weight, stride, padding_height, padding_width);
  }

  static tensor_list backward(AutogradContext* ctx, tensor_list grads) {
    using Signature =
        Tensor(const Tensor&, const Tensor&, const Tensor&, int64_t, int64_t, int64_t);
    static const auto input_grad = find_operator<Signature>("sepablate::convolution_input_grad");
    static const auto weight_grad = find_operator<Signature>("sepablate::convolution_weight_grad");
    check_first_order("convolution");
    BelowAutograd guard;
    auto saved = ctx->get_saved_variables();
    const Tensor &x = saved[0], &weight = saved[1];
    auto geometry = ctx->saved_data["geometry"].toIntVector();
    Tensor dy = channels_last(grads[0]), dx, dweight;
    if (ctx->needs_input_grad(1))
      dweight = weight_grad.call(dy, x, weight, geometry[0], geometry[1], geometry[2]);
    if (ctx->needs_input_grad(0))
      dx = input_grad.call(dy, x, weight, geometry[0], geometry[1], geometry[2]);
    return {dx, dweight, Tensor(), Tensor(), Tensor()};
  }
};

struct MaxPoolFunction : Function<MaxPoolFunction> {
  static Tensor forward(AutogradContext* ctx, const Tensor& x, int64_t padding) {
    static const auto op = find_operator<std::tuple<Tensor, Tensor>(const Tensor&, int64_t)>(
        "sepablate::max_pool_with_indices");
    BelowAutograd guard;
    auto [y, indices] = op.call(x, padding);
    ctx->save_for_backward({indices});
    ctx->saved_data["height"] = x.sym_size(2);
    ctx->saved_data["width"] = x.sym_size(3);
    ctx->saved_data["padding"] = padding;
    return y;
  }

  static tensor_list backward(AutogradContext* ctx, tensor_list grads) {
    static const auto op =
        find_operator<Tensor(const Tensor&, const Tensor&, SymInt, SymInt, int64_t)>(
            "sepablate::max_pool_backward");
    check_first_order("max_pool");
    BelowAutograd guard;
    auto& data = ctx->saved_data;
    Tensor dx = op.call(grads[0], ctx->get_saved_variables()[0], data["height"].toSymInt(),
                        data["width"].toSymInt(), data["padding"].toInt());
    return {dx, Tensor()};
  }
};

struct BatchNormFunction : Function<BatchNormFunction> {
  static Tensor forward(AutogradContext* ctx, const Tensor& input, const Tensor& weight,
                        const Tensor& bias, const Tensor& running_mean, const Tensor& running_var,
                        double momentum, double eps, bool relu, const OptionalTensor& residual,
                        const OptionalTensor& num_batches_tracked) {
    static const auto op = find_operator<std::tuple<Tensor, Tensor, Tensor>(
        const Tensor&, const Tensor&, const Tensor&, const Tensor&, const Tensor&, double, double,
        bool, const OptionalTensor&, const OptionalTensor&)>("sepablate::bn_forward");
    BelowAutograd guard;
    Tensor x = channels_last(input);
    auto [y, mean, rstd] = op.call(x, weight, bias, running_mean, running_var, momentum, eps, relu,
                                   residual, num_batches_tracked);
    // They changed in place: autograd must notice if another graph has saved them.
    torch::autograd::impl::bump_version(running_mean);
    torch::autograd::impl::bump_version(running_var);
    if (num_batches_tracked) torch::autograd::impl::bump_version(*num_batches_tracked);
    ctx->save_for_backward({x, weight, bias, mean, rstd});
    ctx->saved_data["relu"] = relu;
    ctx->saved_data["residual"] = residual.has_value();
    return y;
  }

  static tensor_list backward(AutogradContext* ctx, tensor_list grads) {
    static const auto op = find_operator<std::tuple<Tensor, Tensor, Tensor>(
        const Tensor&, const Tensor&, const Tensor&, const Tensor&, const Tensor&, const Tensor&,
        bool)>("sepablate::bn_backward");
    check_first_order("batch_norm");
    BelowAutograd guard;
    auto saved = ctx->get_saved_variables();
    Tensor dy = channels_last(grads[0]), none;
    auto [dx, dweight, dbias] = op.call(dy, saved[0], saved[1], saved[2], saved[3], saved[4],
                                        ctx->saved_data["relu"].toBool());
    Tensor dresidual = ctx->saved_data["residual"].toBool() ? dy : none;
    return {dx, dweight, dbias, none, none, none, none, none, dresidual, none};
  }
};

struct ConvNormFunction : Function<ConvNormFunction> {
  static Tensor forward(AutogradContext* ctx, const Tensor& input, const OptionalTensor& depthwise,
                        const Tensor& weight, int64_t stride, int64_t padding_height,
                        int64_t padding_width, bool relu_first, bool relu_between,
                        const Tensor& norm_weight, const Tensor& norm_bias,
                        const Tensor& running_mean, const Tensor& running_var, double momentum,
                        double eps, bool relu, const OptionalTensor& residual,
                        const OptionalTensor& num_batches_tracked) {
    static const auto op = find_operator<decltype(conv_norm_forward_cpu)>(
        "sepablate::conv_norm_forward");
    BelowAutograd guard;
    Tensor x = channels_last(input);
    auto [y, between, convolved, mean, rstd] =
        op.call(x, depthwise, weight, stride, padding_height, padding_width, relu_first,
                relu_between, norm_weight, norm_bias, running_mean, running_var, momentum, eps,
                relu, residual, num_batches_tracked);
    // They changed in place: autograd must notice if another graph has saved them.
    torch::autograd::impl::bump_version(running_mean);
    torch::autograd::impl::bump_version(running_var);
    if (num_batches_tracked) torch::autograd::impl::bump_version(*num_batches_tracked);
    ctx->save_for_backward({x, depthwise.value_or(Tensor()), weight, between, convolved,
                            norm_weight, norm_bias, mean, rstd});
    ctx->saved_data["geometry"] = std::vector<int64_t>{stride, padding_height, padding_width};
    ctx->saved_data["relus"] = std::vector<int64_t>{relu_first, relu_between, relu};
    ctx->saved_data["residual"] = residual.has_value();
    return y;
  }

  static tensor_list backward(AutogradContext* ctx, tensor_list grads) {
    static const auto op = find_operator<decltype(conv_norm_backward_cpu)>(
        "sepablate::conv_norm_backward");
    check_first_order("conv_norm");
    BelowAutograd guard;
    auto saved = ctx->get_saved_variables();
    auto geometry = ctx->saved_data["geometry"].toIntVector();
    auto relus = ctx->saved_data["relus"].toIntVector();
    OptionalTensor depthwise = saved[1].defined() ? OptionalTensor(saved[1]) : std::nullopt;
    Tensor dy = channels_last(grads[0]), none;
    auto [dx, dtaps, dweight, dscale, dbias] =
        op.call(dy, saved[0], depthwise, saved[2], saved[3], saved[4], saved[5], saved[6], saved[7],
                saved[8], geometry[0], geometry[1], geometry[2], relus[0], relus[1], relus[2],
                ctx->needs_input_grad(0));
    Tensor dresidual = ctx->saved_data["residual"].toBool() ? dy : none;
    if (!ctx->needs_input_grad(0)) dx = none;
    if (!depthwise) dtaps = none;
    return {dx,     dtaps, dweight, none, none, none, none, none,      dscale,
            dbias, none,  none,    none, none, none, dresidual, none};
  }
};

}  // namespace sepablate
