"""Wrong edits of the styles of p01."""

from .. import Mutant

MUTANTS = [
    # ---- closures
    Mutant(
        "closures",
        "            self._out_grad += other.data * out._out_grad\n"
        "            other._out_grad += self.data * out._out_grad\n",
        "            self._out_grad = other.data * out._out_grad\n"
        "            other._out_grad = self.data * out._out_grad\n",
        "product_assigns",
        "assigned",
    ),
    Mutant(
        "closures",
        "            self._out_grad += other.data * out._out_grad\n"
        "            other._out_grad += self.data * out._out_grad\n",
        "            self._out_grad += self.data * out._out_grad\n"
        "            other._out_grad += other.data * out._out_grad\n",
        "product_rule_swapped",
        "wrong_product_rule",
    ),
    Mutant(
        "closures",
        "(out.data > 0) * out._out_grad",
        "(out.data <= 0) * out._out_grad",
        "gate_flipped",
        "relu_gate_flipped",
    ),
    Mutant(
        "closures",
        "        self._out_grad = 1.0\n",
        "",
        "seed_forgotten",
        "seed_of_zero",
    ),
    Mutant(
        "closures",
        "        for v in topo:\n            v._out_grad = 0.0\n",
        "",
        "last_pass_not_cleared",
    ),
    Mutant(
        "closures",
        "other * self.data ** (other - 1) * out._out_grad",
        "other * self.data**other * out._out_grad",
        "power_rule_without_minus_one",
    ),
    Mutant(
        "closures",
        "        return other + (-self)\n",
        "        return self + (-other)\n",
        "reflected_difference_reversed",
    ),
    # ---- stored_derivatives
    Mutant(
        "stored_derivatives",
        "                flow[parent] = flow.get(parent, 0.0) + slope * arrived\n",
        "                flow[parent] = slope * arrived\n",
        "flow_is_overwritten",
        "assigned",
    ),
    Mutant(
        "stored_derivatives",
        "(other.data, self.data))\n",
        "(self.data, other.data))\n",
        "slopes_swapped",
        "wrong_product_rule",
    ),
    Mutant(
        "stored_derivatives",
        "(1.0 if self.data > 0 else 0.0,)",
        "(0.0 if self.data > 0 else 1.0,)",
        "slope_where_closed",
        "relu_gate_flipped",
    ),
    Mutant(
        "stored_derivatives",
        "        flow = {self: 1.0}\n",
        "        flow = {self: 0.0}\n",
        "flow_starts_at_zero",
        "seed_of_zero",
    ),
    Mutant(
        "stored_derivatives",
        "            node.grad += arrived\n",
        "            node.grad = arrived\n",
        "second_call_replaces",
    ),
    Mutant(
        "stored_derivatives",
        "        return Value(t, (self,), (1.0 - t * t,))\n",
        "        return Value(t, (self,), (1.0 - t,))\n",
        "tanh_slope_not_squared",
    ),
    Mutant(
        "stored_derivatives",
        "        elif parent not in seen:\n            seen.add(parent)\n",
        "        else:\n            seen.add(parent)\n",
        "visited_again_and_again",
    ),
    # ---- tape
    Mutant(
        "tape",
        "adjoint[source] = adjoint.get(source, 0.0) + derivative * adjoint[node]",
        "adjoint[source] = derivative * adjoint[node]",
        "adjoint_is_overwritten",
        "assigned",
    ),
    Mutant(
        "tape",
        "(self, other.data), (other, self.data))",
        "(self, self.data), (other, other.data))",
        "derivatives_of_the_wrong_factor",
        "wrong_product_rule",
    ),
    Mutant(
        "tape",
        "            return Value(self.data, (self, 1))\n        return Value(0.0, (self, 0))\n",
        "            return Value(self.data, (self, 0))\n        return Value(0.0, (self, 1))\n",
        "one_below_zero",
        "relu_gate_flipped",
    ),
    Mutant(
        "tape",
        "        adjoint = {self: 1.0}\n",
        "        adjoint = {self: self.grad}\n",
        "seed_is_the_old_gradient",
        "seed_of_zero",
    ),
    Mutant(
        "tape",
        "        for reference in reversed(_tape):\n            node = reference()\n"
        "            if node not in adjoint:\n",
        "        for reference in _tape:\n            node = reference()\n"
        "            if node not in adjoint:\n",
        "tape_read_forwards",
    ),
    Mutant(
        "tape",
        "(self, -other / self.data**2)",
        "(self, other / self.data**2)",
        "quotient_sign",
    ),
    Mutant(
        "tape",
        "    return order[::-1]\n",
        "    return order\n",
        "root_comes_first",
    ),
    # ---- op_classes
    Mutant(
        "op_classes",
        "                gradients[source] = gradients.get(source, 0.0) + part\n",
        "                gradients[source] = part\n",
        "parts_do_not_add_up",
        "assigned",
    ),
    Mutant(
        "op_classes",
        "        return gradient * self.b, gradient * self.a\n",
        "        return gradient * self.a, gradient * self.b\n",
        "each_factor_its_own_derivative",
        "wrong_product_rule",
    ),
    Mutant(
        "op_classes",
        "        return (gradient if self.open else 0.0,)\n",
        "        return (0.0 if self.open else gradient,)\n",
        "passes_when_closed",
        "relu_gate_flipped",
    ),
    Mutant(
        "op_classes",
        "        result.depth = 1 + max(i.depth for i in inputs)\n",
        "        result.depth = 1 + min(i.depth for i in inputs)\n",
        "depth_of_the_shortest_way",
    ),
    Mutant(
        "op_classes",
        "-gradient * self.a / self.b**2",
        "-gradient / self.b**2",
        "quotient_rule_without_numerator",
    ),
    Mutant(
        "op_classes",
        "    found.sort(key=lambda value: value.depth)\n",
        "    found.reverse()\n",
        "breadth_first_is_not_an_order",
        "no_order",
    ),
    Mutant(
        "op_classes",
        "        return Subtract()(other, self)\n",
        "        return Subtract()(self, other)\n",
        "reflected_operands_not_swapped",
    ),
    # ---- kahn
    Mutant(
        "kahn",
        "                gradient[arg] += gradient[node] * slope\n",
        "                gradient[arg] = gradient[node] * slope\n",
        "gradient_set_not_added",
        "assigned",
    ),
    Mutant(
        "kahn",
        "                return self.args[1].data, x\n",
        "                return x, self.args[1].data\n",
        "product_table_swapped",
        "wrong_product_rule",
    ),
    Mutant(
        "kahn",
        "                return (float(x > 0),)\n",
        "                return (float(x <= 0),)\n",
        "relu_table_flipped",
        "relu_gate_flipped",
    ),
    Mutant(
        "kahn",
        "        gradient[self] = 1.0\n",
        "        gradient[self] = 0.0\n",
        "root_gets_nothing",
        "seed_of_zero",
    ),
    Mutant(
        "kahn",
        "            if uses[arg] == 0:\n                ready.append(arg)\n",
        "            if arg not in order:\n                ready.append(arg)\n",
        "ready_before_all_uses",
    ),
    Mutant(
        "kahn",
        "            node.grad += total\n",
        "            node.grad = total\n",
        "forgets_the_call_before",
    ),
    Mutant(
        "kahn",
        '            case "exp":\n                return (self.data,)\n',
        '            case "exp":\n                return (x,)\n',
        "exp_derivative_of_the_input",
    ),
    # ---- subclasses
    Mutant(
        "subclasses",
        "                child.grad += node.grad * partial\n",
        "                child.grad = node.grad * partial\n",
        "child_gradient_assigned",
        "assigned",
    ),
    Mutant(
        "subclasses",
        "        return b.data, a.data\n",
        "        return a.data, b.data\n",
        "partials_in_the_wrong_order",
        "wrong_product_rule",
    ),
    Mutant(
        "subclasses",
        "        return (int(self.data > 0),)\n",
        "        return (int(self.data == 0),)\n",
        "open_where_zero",
        "relu_gate_flipped",
    ),
    Mutant(
        "subclasses",
        "        self.grad += 1.0\n",
        "        self.grad += 0.0\n",
        "adds_zero_to_the_root",
        "seed_of_zero",
    ),
    Mutant(
        "subclasses",
        "            if node.children:\n                node.grad = 0.0\n",
        "            pass\n",
        "intermediate_nodes_counted_twice",
    ),
    Mutant(
        "subclasses",
        "        return (-self.data * self.data,)\n",
        "        return (-self.data,)\n",
        "reciprocal_rule_not_squared",
    ),
    Mutant(
        "subclasses",
        "        return Sum(self, Negative(other))\n",
        "        return Sum(self, Negative(other).data)\n",
        "subtrahend_leaves_the_graph",
    ),
]
