"""An error names the operation and the shapes."""

import pytest

import p02_tensors as torch
from p02_tensors import broadcast_shapes


def test_shapes_that_do_not_fit_are_shown_aligned_with_the_axis_marked():
    with pytest.raises(RuntimeError) as error:
        broadcast_shapes((8, 1, 6, 1), (12, 1, 5), (5, 1))
    assert str(error.value).splitlines() == [
        "shapes (8, 1, 6, 1) and (12, 1, 5) and (5, 1) do not fit:",
        "   8   1   6   1",
        "      12   1   5",
        "           5   1",
        "           ^",
    ]


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("x + torch.ones(2)", "add: shapes (2, 3) and (2,) do not fit"),
        ("x / torch.ones(4, 3)", "divide: shapes (2, 3) and (4, 3) do not fit"),
        ("torch.where(x > 0, x, torch.ones(2))", "where: shapes (2, 3) and (2, 3) and (2,)"),
        ("x @ x", "matmul: (2, 3) @ (2, 3), the inner sizes differ"),
        ("x @ torch.ones(3, 4, dtype=torch.float64)", "matmul: one dtype needed, got float32"),
        ("x @ torch.tensor(1.0)", "matmul: both need an axis, got (2, 3) and ()"),
        ("x.expand(4, 3)", "expand: (2, 3) cannot become (4, 3)"),
        ("x.reshape(4, -1)", "reshape: (2, 3) does not fit into (4, -1)"),
        ("x.T.view(6)", "view: (3, 2) is not laid out in this order; use reshape"),
        ("x.permute(0)", "permute: (0,) does not order 2 axes"),
        ("x.sum(2)", "dim 2 is out of range: 2 axes have dims -2 to 1"),
        ("x.sum((0, 0))", "dim (0, 0) names an axis twice"),
        ("x[2]", "index into shape (2, 3): "),
        ("x[torch.ones(2)]", "an index is made of integers or bools, got float32"),
        ("torch.cat([x, torch.ones(2, 4)])", "cat along dim 0: the other sizes differ in [(2, 3),"),
        ("torch.stack([x, torch.ones(3)])", "stack: one shape needed, got [(2, 3), (3,)]"),
        ("torch.tril(torch.ones(3))", "tril and triu need two axes, got shape (3,)"),
        ("x.masked_fill(x, 0.0)", "need a bool mask, got float32"),
        ("x.item()", "item: one element needed, this has shape (2, 3)"),
        ("torch.arange(3).mean()", "mean: floats needed, got int64"),
        ("torch.zeros(0).max()", "max of no elements, shape (0,)"),
        ("x.backward()", "this tensor does not require grad"),
        ("(w * w).backward()", "backward: (2, 3) is not one element; give a gradient"),
        ("(w * w).backward(torch.ones(3))", "backward: gradient (3,) for a tensor (2, 3)"),
        ("w.numpy()", "requires grad; use detach().numpy()"),
        ("torch.tensor([1], requires_grad=True)", "only floats can require gradients"),
        ("torch.tensor([[1], [1, 2]])", "lists inside have different lengths"),
        ("torch.tensor('ten')", "numbers needed"),
        ("w.__setitem__(0, 1.0)", "requires grad; use no_grad()"),
        ("torch.nn.functional.layer_norm(x, (2,))", "layer_norm: (2, 3) does not end in (2,)"),
    ],
    ids=lambda value: value if "torch" in value or "x" in value else "",
)
def test_an_error_says_what_was_wrong(line, says):
    names = {"torch": torch, "x": torch.ones(2, 3), "w": torch.ones(2, 3, requires_grad=True)}
    with pytest.raises((RuntimeError, ValueError, IndexError, TypeError)) as error:
        eval(line, names)
    assert says in str(error.value)


def test_a_graph_that_was_used_up_says_so():
    w = torch.ones(2, requires_grad=True)
    y = (w * w).sum()
    y.backward(retain_graph=True)
    y.backward()
    assert w.grad.tolist() == [4.0, 4.0]
    with pytest.raises(RuntimeError, match="used up; use retain_graph=True"):
        y.backward()
