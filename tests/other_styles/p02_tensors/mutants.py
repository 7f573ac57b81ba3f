"""Wrong edits of the styles of p02."""

from .. import Mutant

MUTANTS = [
    # ---- closures
    Mutant(
        "closures",
        "        g = unbroadcast(np.asarray(g), t.shape).astype(t.dtype)\n",
        "        g = np.asarray(g).astype(t.dtype)\n",
        "gradient_keeps_the_broadcast_shape",
        "no_unbroadcast",
    ),
    Mutant(
        "closures",
        "    array = array.reshape((1,) * (len(shape) - array.ndim) + array.shape)\n",
        "    array = array.reshape(array.shape + (1,) * (len(shape) - array.ndim))\n",
        "dimensions_added_on_the_right",
        "left_aligned",
    ),
    Mutant(
        "closures",
        "            send(a, g @ y.swapaxes(-1, -2))\n",
        "            send(a, g @ y)\n",
        "left_factor_without_transpose",
        "no_transpose",
    ),
    Mutant(
        "closures",
        "            send(self, stretch(g.reshape(kept), self.shape))\n",
        "            send(self, g.reshape(kept))\n",
        "sum_sends_its_own_shape",
        "sum_not_expanded",
    ),
    Mutant(
        "closures",
        "np.exp(self.data - stretch(self.data.max(axis=dim, keepdims=True), self.shape))",
        "np.exp(self.data)",
        "softmax_of_raw_scores",
        "no_shift",
    ),
    Mutant(
        "closures",
        "        t._arrived = g if t._arrived is None else t._arrived + g\n",
        "        t._arrived = g\n",
        "arrived_is_overwritten",
    ),
    Mutant(
        "closures",
        "            send(a, g / y)\n            send(b, -g * x / (y * y))\n",
        "            send(a, g / y)\n            send(b, g * x / (y * y))\n",
        "quotient_rule_sign",
    ),
    Mutant(
        "closures",
        "            np.add.at(full, index, g)\n",
        "            full[index] = g\n",
        "repeated_index_counts_once",
    ),
    # ---- op_classes
    Mutant(
        "op_classes",
        "        return (unbroadcast(g, self.shape),)\n",
        "        return (g,)\n",
        "expand_passes_the_gradient_on",
        "no_unbroadcast",
    ),
    Mutant(
        "op_classes",
        "    padded = [(1,) * (width - len(s)) + tuple(s) for s in shapes]\n",
        "    padded = [tuple(s) + (1,) * (width - len(s)) for s in shapes]\n",
        "shapes_padded_on_the_right",
        "left_aligned",
    ),
    Mutant(
        "op_classes",
        "        to_y = np.matmul(np.swapaxes(self.x, -1, -2), g)\n",
        "        to_y = np.matmul(self.x, g)\n",
        "right_factor_without_transpose",
        "no_transpose",
    ),
    Mutant(
        "op_classes",
        "class Add(Operation):\n    def forward(self, x, y):\n        return x + y\n",
        "class Add(Operation):\n    def forward(self, x, y):\n        x += y\n        return x\n",
        "addition_in_place",
        "added_in_place",
    ),
    Mutant(
        "op_classes",
        "        self.out = x - top - broadcast_to(np.log(total), x.shape)\n",
        "        self.out = np.log(np.exp(x - top) / broadcast_to(total, x.shape))\n",
        "logarithm_of_the_softmax",
        "log_of_softmax",
    ),
    Mutant(
        "op_classes",
        "        mean = broadcast_to((g * self.out).sum(axis=self.dim, keepdims=True), g.shape)\n"
        "        return ((g - mean) * self.out,)\n",
        "        return (g * self.out * (1 - self.out),)\n",
        "softmax_diagonal_alone",
    ),
    Mutant(
        "op_classes",
        "        return (np.transpose(g, np.argsort(self.dims)),)\n",
        "        return (np.transpose(g, self.dims),)\n",
        "permutation_not_inverted",
    ),
    Mutant(
        "op_classes",
        "        return g, -g\n",
        "        return g, g\n",
        "difference_without_minus",
    ),
    # ---- vjp_table
    Mutant(
        "vjp_table",
        '    "expand": lambda g, out, x, shape: (unbroadcast(g, x.shape),),\n',
        '    "expand": lambda g, out, x, shape: (g,),\n',
        "expand_is_not_summed",
        "no_unbroadcast",
    ),
    Mutant(
        "vjp_table",
        "(g @ y.swapaxes(-1, -2), x.swapaxes(-1, -2) @ g)",
        "(g @ y, x @ g)",
        "neither_factor_transposed",
        "no_transpose",
    ),
    Mutant(
        "vjp_table",
        "    e = np.exp(a - keep(a, np.max, dim))\n",
        "    e = np.exp(a)\n",
        "exponentials_overflow",
        "no_shift",
    ),
    Mutant(
        "vjp_table",
        '    "log_softmax": log_softmax_array,\n',
        '    "log_softmax": lambda a, dim: np.log(softmax_array(a, dim)),\n',
        "log_after_softmax",
        "log_of_softmax",
    ),
    Mutant(
        "vjp_table",
        "    return spread(g.reshape((1,) * x.ndim) if dim is None else g, x.shape)\n",
        "    return g.reshape((1,) * x.ndim) if dim is None else g\n",
        "sum_gradient_stays_small",
        "sum_not_expanded",
    ),
    Mutant(
        "vjp_table",
        '    "tanh": lambda g, out, x: (g - g * out * out,),\n',
        '    "tanh": lambda g, out, x: (g - g * x * x,),\n',
        "tanh_rule_of_the_input",
    ),
    Mutant(
        "vjp_table",
        "            uses[parent] += 1\n",
        "            uses[parent] = 1\n",
        "ready_at_the_first_use",
    ),
    Mutant(
        "vjp_table",
        '    settings["grad"] = False\n    try:\n        yield\n    finally:\n'
        '        settings["grad"] = old\n',
        "    yield\n",
        "no_grad_records",
    ),
    # ---- serial_numbers
    Mutant(
        "serial_numbers",
        "        return unbroadcast(np.asarray(g), self.shape).astype(self.dtype, copy=False)\n",
        "        return np.asarray(g).astype(self.dtype, copy=False)\n",
        "fit_does_not_sum",
        "no_unbroadcast",
    ),
    Mutant(
        "serial_numbers",
        "        x, y, a, b = self._with(other)\n        return Tensor(a + b, ",
        "        x, y, a, b = self._with(other)\n        a += b\n        return Tensor(a, ",
        "sum_written_over_the_left",
        "added_in_place",
    ),
    Mutant(
        "serial_numbers",
        'np.einsum("...ij,...ik->...jk", a, g)',
        'np.einsum("...ij,...jk->...ik", a, g)',
        "product_instead_of_transposed_product",
        "no_transpose",
    ),
    Mutant(
        "serial_numbers",
        "        x = x - _widen(x.max(axis=dim, keepdims=True), x.shape)\n",
        "",
        "log_softmax_not_shifted",
        "no_shift",
    ),
    Mutant(
        "serial_numbers",
        "                    totals[parent._number] = totals[parent._number] + part\n",
        "                    totals[parent._number] = part\n",
        "last_contribution_wins",
    ),
    Mutant(
        "serial_numbers",
        "        return Tensor(y, [(self, lambda g: g * y)])\n",
        "        return Tensor(y, [(self, lambda g: g / y)])\n",
        "exp_rule_inverted",
    ),
    Mutant(
        "serial_numbers",
        "        return y * (y._array.size / self._array.size)\n",
        "        return y / self.shape[dim or 0]\n",
        "mean_over_one_dimension_only",
    ),
    Mutant(
        "serial_numbers",
        "        return -self + other\n",
        "        return self - other\n",
        "reflected_difference_reversed",
    ),
    # ---- functional
    Mutant(
        "functional",
        "expand_.derivatives(lambda g, out, x, shape: fold_(g, shape=x.shape))\n",
        "expand_.derivatives(lambda g, out, x, shape: g)\n",
        "expand_does_not_fold",
        "no_unbroadcast",
    ),
    Mutant(
        "functional",
        "        a, b = s[~i], t[~i]\n        if a != b and a != 1 and b != 1:\n"
        '            raise ValueError(f"shapes {s} and {t} do not broadcast")\n'
        "        out[~i] = a if b == 1 else b\n",
        "        a, b = s[i], t[i]\n        if a != b and a != 1 and b != 1:\n"
        '            raise ValueError(f"shapes {s} and {t} do not broadcast")\n'
        "        out[i] = a if b == 1 else b\n",
        "compared_from_the_left",
        "left_aligned",
    ),
    Mutant(
        "functional",
        "sum_.derivatives(lambda g, out, x, dims: expand_(g, shape=x.shape))\n",
        "sum_.derivatives(lambda g, out, x, dims: g)\n",
        "sum_does_not_expand",
        "sum_not_expanded",
    ),
    Mutant(
        "functional",
        "    lambda g, out, x, y: matmul_(transpose(x, -2, -1), g),\n",
        "    lambda g, out, x, y: matmul_(x, g),\n",
        "weights_gradient_without_transpose",
        "no_transpose",
    ),
    Mutant(
        "functional",
        "    x = sub(x, Tensor(x.values.max(axis=dim, keepdims=True)))\n",
        "",
        "log_sum_exp_overflows",
        "no_shift",
    ),
    Mutant(
        "functional",
        "    return sorted(seen, key=lambda t: -t.depth)\n",
        "    return todo\n",
        "breadth_first_order",
    ),
    Mutant(
        "functional",
        "leaf.grad = tensor(g) if leaf.grad is None else add(leaf.grad, g)",
        "leaf.grad = tensor(g)",
        "second_backward_replaces",
    ),
    Mutant(
        "functional",
        "relu.derivatives(lambda g, out, x: where(x > 0, g, 0.0))\n",
        "relu.derivatives(lambda g, out, x: where(x < 0, g, 0.0))\n",
        "relu_gate_inverted",
    ),
]
