"""Wrong edits of the styles of p05."""

from .. import Mutant

MUTANTS = [
    # ---- book
    Mutant(
        "book",
        "        x = x + self.attn(self.ln_1(x))\n",
        "        x = self.attn(self.ln_1(x))\n",
        "attention_replaces_the_stream",
        "no_attention_residual",
    ),
    Mutant(
        "book",
        "            nn.GELU(),\n",
        "",
        "linear_mlp",
        "no_gelu",
    ),
    Mutant(
        "book",
        "nn.Sequential(*[Block(n_embd, n_head) for _ in range(n_layer)])",
        "nn.Sequential(*[Block(n_embd, n_head)] * n_layer)",
        "one_block_n_times",
        "shared_blocks",
    ),
    Mutant(
        "book",
        "        x    = self.tok_emb(idx) + self.pos_emb(pos)\n",
        "        x    = self.tok_emb(idx)\n",
        "positions_left_out",
        "no_pos_emb",
    ),
    Mutant(
        "book",
        "data[i + 1 : i + block_size + 1] for i in ix",
        "data[i : i + block_size] for i in ix",
        "targets_are_the_inputs",
        "targets_not_shifted",
    ),
    Mutant(
        "book",
        "    for i in range(0, len(data) - 1, block_size):\n",
        "    for i in range(0, len(data) - block_size, block_size):\n",
        "last_window_dropped",
    ),
    Mutant(
        "book",
        "        logits = model(idx[:, -block_size:])[:, -1, :]\n",
        "        logits = model(idx[:, :block_size])[:, -1, :]\n",
        "context_cropped_at_the_wrong_end",
    ),
    Mutant(
        "book",
        "F.softmax(logits / temperature, dim=-1)",
        "F.softmax(logits * temperature, dim=-1)",
        "temperature_multiplied",
    ),
    # ---- bare_parameters
    Mutant(
        "bare_parameters",
        "        return x + self.mlp(self.norm2(x))\n",
        "        return self.mlp(self.norm2(x))\n",
        "mlp_replaces_the_stream",
        "no_mlp_residual",
    ),
    Mutant(
        "bare_parameters",
        "        x = x + self.attn(self.norm1(x))\n        return x + self.mlp(self.norm2(x))\n",
        "        x = self.norm1(x + self.attn(x))\n        return self.norm2(x + self.mlp(x))\n",
        "norms_after_the_sums",
        "post_norm",
    ),
    Mutant(
        "bare_parameters",
        "[Block(n_embd, n_head) for _ in range(n_layer)]",
        "[Block(n_embd, n_head)]",
        "a_list_of_one",
        "one_block",
    ),
    Mutant(
        "bare_parameters",
        "            raise ValueError("
        'f"{T} tokens, and the model sees at most {self.block_size}")\n'
        "        x = self.tok_emb[idx] + self.pos_emb[:T]\n",
        "            pass\n"
        "        x = self.tok_emb[idx] + self.pos_emb[torch.arange(T) % self.block_size]\n",
        "positions_start_again",
    ),
    Mutant(
        "bare_parameters",
        "    start = torch.randint(0, last + 1, (batch_size, 1), generator=generator)\n",
        "    start = torch.randint(0, last, (batch_size, 1), generator=generator)\n",
        "last_window_never_drawn",
    ),
    Mutant(
        "bare_parameters",
        "    return float((torch.stack(losses) * counts).sum() / counts.sum())\n",
        "    return float(torch.stack(losses).mean())\n",
        "mean_of_means",
    ),
    Mutant(
        "bare_parameters",
        "logits.sort(descending=True).values[:, top_k - 1 : top_k]",
        "logits.sort(descending=True).values[:, top_k : top_k + 1]",
        "top_k_plus_one",
    ),
    Mutant(
        "bare_parameters",
        "log_softmax(logits, dim=-1)",
        "log_softmax(logits, dim=1)",
        "softmax_over_time",
    ),
    # ---- gumbel
    Mutant(
        "gumbel",
        "        x = x + self.attend(self.ln1(x))\n",
        "",
        "attention_never_called",
        "no_attention",
    ),
    Mutant(
        "gumbel",
        "        return x + self.think(self.ln2(x))\n",
        "        return x\n",
        "mlp_never_called",
        "no_mlp",
    ),
    Mutant(
        "gumbel",
        "        x = x + self.attend(self.ln1(x))\n",
        "        x = x + self.attend(x)\n",
        "attention_without_norm",
        "no_ln_1",
    ),
    Mutant(
        "gumbel",
        "        return self.head(self.ln_f(self.blocks(x)))\n",
        "        return self.head(self.ln_f(x))\n",
        "blocks_left_out",
        "no_blocks",
    ),
    Mutant(
        "gumbel",
        "        forbidden = torch.full((T, T), True, device=x.device).triu(1)\n",
        "        forbidden = torch.full((T, T), True, device=x.device).tril(-1)\n",
        "mask_of_the_past",
    ),
    Mutant(
        "gumbel",
        "    return -picked.mean()\n",
        "    return -picked.sum(dim=-1).mean()\n",
        "sum_over_time",
    ),
    Mutant(
        "gumbel",
        "logits / temperature - waiting.log()",
        "(logits - waiting.log()) / temperature",
        "noise_divided_too",
    ),
    Mutant(
        "gumbel",
        "        model.train(training)\n",
        "        model.train(False)\n",
        "mode_not_restored",
    ),
    # ---- nanogpt
    Mutant(
        "nanogpt",
        "        x = x + self.mlp(self.ln_2(x))\n",
        "        x = x + self.mlp(x)\n",
        "mlp_without_norm",
        "no_ln_2",
    ),
    Mutant(
        "nanogpt",
        "        return self.head(self.ln_f(x))\n",
        "        return self.head(x)\n",
        "last_norm_left_out",
        "no_ln_f",
    ),
    Mutant(
        "nanogpt",
        "nn.init.normal_(module.weight, mean=0.0, std=0.02)",
        "nn.init.zeros_(module.weight)",
        "everything_starts_at_zero",
    ),
    Mutant(
        "nanogpt",
        "[data[i : i + 1 + block_size] for i in ix]",
        "[data[torch.arange(i, i + 2 + block_size) % len(data)] for i in ix]",
        "windows_of_one_too_many",
    ),
    Mutant(
        "nanogpt",
        "        x = self.gelu(x)\n",
        "",
        "gelu_never_called",
        "no_gelu",
    ),
    Mutant(
        "nanogpt",
        "F.scaled_dot_product_attention(q, k, v, is_causal=True)",
        "F.scaled_dot_product_attention(q, k, v)",
        "not_causal",
    ),
    Mutant(
        "nanogpt",
        "F.cross_entropy(logits.transpose(1, 2), targets)",
        "F.cross_entropy(F.softmax(logits, -1).transpose(1, 2), targets)",
        "softmax_twice",
    ),
    Mutant(
        "nanogpt",
        "logits < v[:, -1:]",
        "logits < v[:, :1]",
        "only_the_best_of_the_top_k",
    ),
    # ---- inverse_cdf
    Mutant(
        "inverse_cdf",
        "        return x + self.f(self.norm(x))\n",
        "        return x + self.f(x)\n",
        "residual_without_norm",
        "no_layer_norms",
    ),
    Mutant(
        "inverse_cdf",
        "        return x + self.f(self.norm(x))\n",
        "        return self.norm(x + self.f(x))\n",
        "residual_then_norm",
        "post_norm",
    ),
    Mutant(
        "inverse_cdf",
        "        x = self.tok_emb(idx)\n"
        "        x = x + self.pos_emb(torch.arange(idx.shape[1], device=idx.device))\n",
        "        x = self.pos_emb(torch.arange(idx.shape[1], device=idx.device))\n"
        "        x = x.expand(idx.shape[0], -1, -1)\n",
        "positions_alone",
        "no_tok_emb",
    ),
    Mutant(
        "inverse_cdf",
        "        y[row] = data[i + 1 : i + 1 + block_size]\n",
        "        y[row] = data[(torch.arange(block_size) + i + 2) % len(data)]\n",
        "targets_two_ahead",
        "targets_shifted_by_two",
    ),
    Mutant(
        "inverse_cdf",
        "            done += len(piece) - 1\n",
        "            done += len(piece)\n",
        "one_prediction_lost_between_windows",
    ),
    Mutant(
        "inverse_cdf",
        "logits = model(out[:, max(0, t - model.block_size) : t])[:, -1].double()",
        "logits = model(out[:, max(0, t - model.block_size) : t])[:, 0].double()",
        "first_position_predicts",
    ),
    Mutant(
        "inverse_cdf",
        "u = torch.rand(len(out), 1, generator=generator, dtype=torch.double)",
        "u = torch.rand(len(out), 1, dtype=torch.double)",
        "generator_ignored",
    ),
    Mutant(
        "inverse_cdf",
        "            out[:, t] = order.gather(-1, place)[:, 0]\n",
        "            out[:, t] = place[:, 0]\n",
        "rank_taken_for_token",
    ),
]
