"""Wrong edits of the styles of p04."""

from .. import Mutant

MUTANTS = [
    # ---- einsum: CausalSelfAttention has its own products, so one edit breaks only half of it
    Mutant(
        "einsum",
        "    if mask is not None:\n        s = s.masked_fill(mask.logical_not(), -inf)\n",
        "",
        "mask_argument_ignored",
    ),
    Mutant(
        "einsum",
        'einsum("bqhd,bkhd->bhqk", q, k) / q.shape[-1] ** 0.5',
        'einsum("bqhd,bkhd->bhqk", q, k)',
        "module_without_scale",
    ),
    Mutant(
        "einsum",
        "        s = s.masked_fill(~causal_mask(x.shape[1]).to(x.device), -inf)\n",
        "",
        "module_without_mask",
    ),
    Mutant(
        "einsum",
        "    return t[:, None] >= t[None, :]\n",
        "    return t[:, None] > t[None, :]\n",
        "token_may_not_see_itself",
    ),
    Mutant(
        "einsum",
        'y = einsum("bhqk,bkhd->bqhd", softmax(s), v)',
        'y = einsum("bhkq,bkhd->bqhd", softmax(s), v)',
        "weights_transposed_before_values",
    ),
    Mutant(
        "einsum",
        "    return softmax(s)\n",
        "    return softmax(s, dim=-2)\n",
        "function_normalizes_queries",
    ),
    # ---- fused_qkv
    Mutant(
        "fused_qkv",
        " * (1.0 / math.sqrt(k.size(-1)))",
        "",
        "scores_as_they_are",
        "no_scale",
    ),
    Mutant(
        "fused_qkv",
        '        att = att.masked_fill(mask == 0, float("-inf"))\n',
        "        att = att * mask\n",
        "mask_multiplied_into_scores",
        "mask_with_zero",
    ),
    Mutant(
        "fused_qkv",
        '        att = att.masked_fill(mask == 0, float("-inf"))\n'
        "    return softmax(att, dim=-1)\n",
        "        return softmax(att, dim=-1) * mask\n    return softmax(att, dim=-1)\n",
        "weights_masked_afterwards",
        "mask_after_softmax",
    ),
    Mutant(
        "fused_qkv",
        "        v = v.view(B, T, self.n_head, C // self.n_head).transpose(1, 2)\n",
        "        v = v.reshape(B, self.n_head, T, C // self.n_head)\n",
        "values_viewed_in_the_wrong_order",
    ),
    Mutant(
        "fused_qkv",
        "y.transpose(1, 2).contiguous().view(B, T, C)",
        "y.contiguous().view(B, T, C)",
        "heads_not_put_back",
    ),
    Mutant(
        "fused_qkv",
        "        assert n_embd % n_head == 0\n",
        "        n_head = max(d for d in range(1, n_head + 1) if n_embd % d == 0)\n",
        "another_number_of_heads_silently",
    ),
    # ---- list_of_heads
    Mutant(
        "list_of_heads",
        "torch.matmul(query, key.mT) / head_size**0.5",
        "torch.matmul(query, key.mT) / head_size",
        "divided_by_the_size_not_its_root",
    ),
    Mutant(
        "list_of_heads",
        "torch.matmul(query, key.mT) / head_size**0.5",
        "torch.matmul(query, key.mT)",
        "unscaled",
        "no_scale",
    ),
    Mutant(
        "list_of_heads",
        '        scores[(~mask).expand_as(scores)] = float("-inf")\n',
        "        pass\n",
        "mask_forgotten",
        "no_mask",
    ),
    Mutant(
        "list_of_heads",
        '        scores[(~mask).expand_as(scores)] = float("-inf")\n',
        "        scores[(~mask).expand_as(scores)] = 0\n",
        "masked_scores_zero",
        "mask_with_zero",
    ),
    Mutant(
        "list_of_heads",
        "nn.ModuleList(SelfAttention(n_embd, head_size) for _ in range(n_head))",
        "[SelfAttention(n_embd, head_size) for _ in range(n_head)]",
        "heads_in_a_plain_list",
    ),
    Mutant(
        "list_of_heads",
        "    return x.exp() / x.exp().sum(dim, keepdim=True)\n",
        "    return x.exp() / x.exp().sum()\n",
        "normalized_over_everything",
    ),
    Mutant(
        "list_of_heads",
        "        return self.proj(torch.cat([head(x) for head in self.heads], dim=-1))\n",
        "        return torch.cat([head(x) for head in self.heads], dim=-1)\n",
        "output_projection_forgotten",
    ),
    # ---- additive_mask
    Mutant(
        "additive_mask",
        "        bias[~mask] = -torch.inf\n",
        "        bias[mask] = -torch.inf\n",
        "mask_the_wrong_way_round",
    ),
    Mutant(
        "additive_mask",
        "        bias[~mask] = -torch.inf\n        logits = logits + bias\n",
        "        pass\n",
        "bias_never_added",
        "no_mask",
    ),
    Mutant(
        "additive_mask",
        "    return softmax(logits, dim=-1)\n",
        "    return softmax(logits, dim=-2)\n",
        "columns_sum_to_one",
        "softmax_over_queries",
    ),
    Mutant(
        "additive_mask",
        "    logits = (q / d**0.25) @ (k / d**0.25).transpose(-1, -2)\n",
        "    logits = (q / d**0.5) @ (k / d**0.5).transpose(-1, -2)\n",
        "scaled_twice",
    ),
    Mutant(
        "additive_mask",
        "        x = x.reshape(B, T, self.n_head, C // self.n_head).permute(0, 2, 1, 3)\n"
        "        return x.reshape(B * self.n_head, T, C // self.n_head)\n",
        "        return x.reshape(B * self.n_head, T, C // self.n_head)\n",
        "folded_without_permuting",
        "no_transpose",
    ),
    Mutant(
        "additive_mask",
        "    return log_softmax(x, dim).exp()\n",
        "    return log_softmax(x, dim)\n",
        "logarithms_as_weights",
    ),
    Mutant(
        "additive_mask",
        "    top = x.detach().amax(dim=dim, keepdim=True)\n",
        "    top = torch.zeros_like(x).amax(dim=dim, keepdim=True)\n",
        "exponentials_overflow",
    ),
    # ---- torch_layout
    Mutant(
        "torch_layout",
        ".div(math.sqrt(q.shape[-1]))",
        "",
        "div_left_out",
        "no_scale",
    ),
    Mutant(
        "torch_layout",
        "    return softmax(torch.where(mask, scores, lowest)) * mask\n",
        "    return softmax(scores) * mask\n",
        "weights_zeroed_at_the_end",
        "mask_after_softmax",
    ),
    Mutant(
        "torch_layout",
        "    if mask is None:\n        return softmax(scores)\n"
        "    lowest = torch.finfo(scores.dtype).min\n"
        "    return softmax(torch.where(mask, scores, lowest)) * mask\n",
        "    return scores if mask is None else scores * mask\n",
        "scores_serve_as_weights",
        "no_softmax",
    ),
    Mutant(
        "torch_layout",
        "        packed = packed.view(B, T, 3, self.num_heads, self.head_dim)\n"
        "        q, k, v = packed.permute(2, 0, 3, 1, 4).unbind(0)  # (B, nh, T, hs) each\n",
        "        packed = packed.view(B, 3, self.num_heads, T, self.head_dim)\n"
        "        q, k, v = packed.unbind(1)  # (B, nh, T, hs) each\n",
        "time_and_channels_mixed",
        "no_transpose",
    ),
    Mutant(
        "torch_layout",
        "        return self.out_proj(y.permute(0, 2, 1, 3).reshape(B, T, C))\n",
        "        return self.out_proj(y.reshape(B, T, C))\n",
        "reshape_without_permute",
    ),
    Mutant(
        "torch_layout",
        "    return torch.ones((T, T), dtype=torch.bool).tril_()\n",
        "    return torch.ones((T, T), dtype=torch.bool).triu_()\n",
        "upper_triangle",
    ),
    Mutant(
        "torch_layout",
        "    return torch.matmul(attention_weights(q, k, mask), v)\n",
        "    return torch.matmul(attention_weights(q, k), v)\n",
        "mask_not_handed_on",
    ),
    # ---- joined_weights
    Mutant(
        "joined_weights",
        "    scores = scores.mul(k.new_tensor(k.size(-1)).rsqrt())\n",
        "",
        "rsqrt_line_missing",
        "no_scale",
    ),
    Mutant(
        "joined_weights",
        "        y = scaled_dot_product_attention(*split, mask=causal_mask(T).to(x.device))\n",
        "        split[0] = split[0] * (self.head_size / C) ** 0.5\n"
        "        y = scaled_dot_product_attention(*split, mask=causal_mask(T).to(x.device))\n",
        "root_of_all_channels",
        "scaled_by_n_embd",
    ),
    Mutant(
        "joined_weights",
        "    return softmax(scores, -1)\n",
        "    return softmax(scores, 0)\n",
        "softmax_over_the_first_dimension",
    ),
    Mutant(
        "joined_weights",
        "    if mask is not None:\n"
        '        scores = torch.where(mask, scores, scores.new_tensor(float("-inf")))\n'
        "    return softmax(scores, -1)\n",
        "    return softmax(scores, -1)\n",
        "attends_to_everything",
        "no_mask",
    ),
    Mutant(
        "joined_weights",
        "part.reshape(B, T, self.n_head, self.head_size).movedim(2, 1)",
        "part.reshape(B, self.n_head, T, self.head_size)",
        "heads_cut_across_time",
        "no_transpose",
    ),
    Mutant(
        "joined_weights",
        "            for part in joined(x, self.q, self.k, self.v)\n",
        "            for part in joined(x, self.q, self.q, self.v)\n",
        "keys_are_queries",
    ),
    Mutant(
        "joined_weights",
        "torch.le(positions.unsqueeze(0), positions.unsqueeze(1))",
        "torch.le(positions.unsqueeze(0), positions.unsqueeze(1) + 1)",
        "one_token_of_the_future",
    ),
    Mutant(
        "joined_weights",
        "        y = scaled_dot_product_attention(*split, mask=causal_mask(T).to(x.device))\n",
        "        split[0] = split[0] * self.head_size**0.5\n"
        "        y = scaled_dot_product_attention(*split, mask=causal_mask(T).to(x.device))\n",
        "module_undoes_the_scale",
    ),
    Mutant(
        "joined_weights",
        "part.reshape(B, T, self.n_head, self.head_size)",
        "part.reshape(B, T, 1, C)",
        "one_head_whatever_was_asked_for",
    ),
    Mutant(
        "joined_weights",
        "        B, T, C = x.size()\n",
        "        x = x.detach()\n        B, T, C = x.size()\n",
        "input_detached",
    ),
    # ---- own_linear
    Mutant(
        "own_linear",
        "    q = q * q.shape[-1] ** -0.5\n",
        "    q = q * q.shape[-1] ** 0.5\n",
        "multiplied_by_the_root",
    ),
    Mutant(
        "own_linear",
        "        scores = scores.masked_fill(~mask, -math.inf)\n"
        "    return softmax(scores, dim=-1)\n",
        "        scores = scores.masked_fill(~mask, -math.inf)\n"
        "    return softmax(scores, dim=-2)\n",
        "normalized_per_key",
        "softmax_over_queries",
    ),
    Mutant(
        "own_linear",
        "        scores = scores.masked_fill(~mask, -math.inf)\n",
        "        scores = scores.masked_fill(~mask, 0.0)\n",
        "filled_with_zero",
        "mask_with_zero",
    ),
    Mutant(
        "own_linear",
        "        scores = scores.masked_fill(~mask, -math.inf)\n"
        "    return softmax(scores, dim=-1)\n",
        "        return softmax(scores, dim=-1).masked_fill(~mask, 0.0)\n"
        "    return softmax(scores, dim=-1)\n",
        "filled_after_the_softmax",
        "mask_after_softmax",
    ),
    Mutant(
        "own_linear",
        '        assert n_embd % n_head == 0, f"{n_embd} / {n_head} is not a whole number"\n',
        "",
        "indivisible_is_accepted",
    ),
    Mutant(
        "own_linear",
        "        mask[t, : t + 1] = True\n",
        "        mask[t, max(0, t - 2) : t + 1] = True\n",
        "window_of_three",
    ),
    Mutant(
        "own_linear",
        "(self.q(x), self.k(x), self.v(x), mask)  # (B, nh, T, hs)",
        "(self.q(x) / len(self.q.weight) ** 0.5, self.k(x), self.v(x), mask)",
        "divided_by_the_root_of_all_channels",
        "scaled_by_n_embd",
    ),
    Mutant(
        "own_linear",
        "    return attention_weights(q, k, mask) @ v\n",
        "    return torch.dropout(attention_weights(q, k, mask), 0.1, True) @ v\n",
        "dropout_without_end",
    ),
]
