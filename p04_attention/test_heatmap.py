"""What the heatmap's numbers mean, by hand, and its command line."""

import pytest
import torch

from p04_attention import build, heatmap


def test_shares_by_hand():
    idx = torch.tensor([[7, 8, 7, 7]])
    rows = [[1, 0, 0, 0], [0.5, 0.5, 0, 0], [0.6, 0.3, 0.1, 0], [0.1, 0.2, 0.3, 0.4]]
    found = heatmap.shares(torch.tensor(rows)[None, None], idx)
    expected = {"previous": 0.3, "first": 0.35, "itself": 0.25, "same": (0.6 + 0.4) / 2}
    assert {name: share.item() for name, share in found.items()} == pytest.approx(expected)


def test_weights_are_those_of_every_layer_and_head():
    model = heatmap.train(0, seed=1)
    found = heatmap.weights(model, torch.arange(10)[None])
    assert found.shape == (2, 1, heatmap.N_HEAD, 10, 10)
    assert torch.allclose(found.sum(-1), torch.ones(2, 1, heatmap.N_HEAD, 10), atol=1e-5)
    assert not found[..., ~build.causal_mask(10)].any()
    assert build.attention_weights.__name__ == "attention_weights", "the watching has not ended"


def test_the_two_heads_that_are_drawn():
    previous = torch.tensor([[0.1, 0.2], [0.7, 0.1]])
    same = torch.tensor([[0.1, 0.3], [0.4, 0.1]])
    found = heatmap.choose_heads({"previous": previous, "same": same})
    assert [(layer, head) for layer, head, _ in found] == [(1, 0), (0, 1)]
    assert found[0][2] == "layer 2, head 1: previous 0.70"


def test_the_command_keeps_its_model(tmp_path, monkeypatch, capsys):
    trained, train = [], heatmap.train
    monkeypatch.setattr(heatmap, "train", lambda *args: trained.append(args[0]) or train(*args))
    for name, size in {"N_EMBD": 32, "BLOCK_SIZE": 16, "WINDOWS": 8}.items():
        monkeypatch.setattr(heatmap, name, size)
    monkeypatch.chdir(tmp_path)
    assert heatmap.main(["Ay, sir", "--steps", "2"]) == 0
    first = capsys.readouterr().out
    assert first.count("layer 2, head 4") == 2 and 2 in trained
    assert (tmp_path / "runs/p04_attention/heatmap.png").exists()
    trained.clear()
    assert heatmap.main(["No", "--steps", "2"]) == 0
    assert not any(trained), "it was trained again"
    kept, *table = capsys.readouterr().out.splitlines()
    assert kept.startswith("trained before") and table == first.splitlines()
    (model,) = tmp_path.glob("runs/p04_attention/*.pt")
    model.write_bytes(b"torn")
    assert heatmap.main(["No", "--steps", "2"]) == 0 and 2 in trained


@pytest.mark.parametrize(
    "text, says", [("a", "1 character;"), ("x" * 65, "65"), ("né", "'é'")], ids=["1", "65", "é"]
)
def test_a_text_that_will_not_do_is_one_line(text, says, capsys):
    with pytest.raises(SystemExit) as end:
        heatmap.main([text])
    err = capsys.readouterr().err
    assert end.value.code == 2 and says in err and err.count("\n") == 1
