"""Wrong edits of the styles of p06."""

from .. import Mutant

MUTANTS = [
    # ---- dataclass_trainer
    Mutant(
        "dataclass_trainer",
        "        return max_lr * (step + 1) / warmup_steps\n",
        "        return max_lr\n",
        "full_rate_from_the_start",
        "no_warmup",
    ),
    Mutant(
        "dataclass_trainer",
        "        torch._foreach_mul_(grads, max_norm / norm)\n",
        "        torch._foreach_mul(grads, max_norm / norm)\n",
        "clipped_copy_thrown_away",
        "no_clipping",
    ),
    Mutant(
        "dataclass_trainer",
        '        self.optimizer.load_state_dict(state["optimizer"])\n',
        "",
        "moments_not_restored",
        "weights_alone_resumed",
    ),
    Mutant(
        "dataclass_trainer",
        '        self.rng.set_state(state["batches"])\n',
        "",
        "batches_start_again",
        "batches_from_the_start",
    ),
    Mutant(
        "dataclass_trainer",
        "loss(self.model(x), y) / r.accumulate\n            part.backward()\n"
        "            total += part.item()\n",
        "loss(self.model(x), y)\n            part.backward()\n"
        "            total += part.item() / r.accumulate\n",
        "sum_of_the_micro_batches",
    ),
    Mutant(
        "dataclass_trainer",
        '    want = {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}\n'
        "    if not newline or header != json.dumps(want).encode():\n",
        '    if not newline or json.loads(header)["bytes"] != len(content):\n',
        "only_the_length_is_checked",
    ),
    Mutant(
        "dataclass_trainer",
        "        if math.isfinite(norm):\n            self.optimizer.step()\n",
        "        if norm > 0:\n            self.optimizer.step()\n",
        "infinite_norm_is_not_skipped",
    ),
    # ---- closures
    Mutant(
        "closures",
        "        return falling(step) if step < total_steps else min_lr\n",
        "        return max_lr\n",
        "never_decays",
        "constant_rate",
    ),
    Mutant(
        "closures",
        "        self.optimizer.zero_grad(set_to_none=True)\n",
        "",
        "gradients_pile_up",
        "no_zero_grad",
    ),
    Mutant(
        "closures",
        "            train_ids, recipe.block_size, recipe.batch_size, self.generator\n",
        "            torch.cat([train_ids, val_ids]),\n            recipe.block_size,\n"
        "            recipe.batch_size,\n            self.generator,\n",
        "trains_on_all_ids",
        "leak",
    ),
    Mutant(
        "closures",
        "    return torch.nn.utils.clip_grad_norm_(parameters, max_norm)\n",
        "    parameters = [p for p in parameters if p.grad is not None]\n"
        "    norm = torch.nn.utils.get_total_norm([p.grad for p in parameters])\n"
        "    torch.nn.utils.clip_grad_value_(parameters, max_norm)\n"
        "    return norm\n",
        "clipped_by_value",
    ),
    Mutant(
        "closures",
        "        os.replace(temporary, path)\n",
        '        with open(path, "wb") as f:\n            f.write(open(temporary, "rb").read())\n'
        "        os.unlink(temporary)\n",
        "copied_instead_of_replaced",
    ),
    Mutant(
        "closures",
        'map_location=torch.device("cpu"), weights_only=True)',
        'map_location=torch.device("cpu"), weights_only=False)',
        "code_in_the_file_is_run",
    ),
    Mutant(
        "closures",
        '        self.steps_done = state["steps_done"]\n',
        "",
        "schedule_starts_again",
    ),
    # ---- zip_container
    Mutant(
        "zip_container",
        "    if step < warmup_steps:\n        return warmup\n",
        "    if step < warmup_steps:\n        return max_lr\n",
        "warmup_computed_and_not_used",
        "no_warmup",
    ),
    Mutant(
        "zip_container",
        "            g.mul_(factor.item())\n",
        "            g.mul(factor.item())\n",
        "not_in_place",
        "no_clipping",
    ),
    Mutant(
        "zip_container",
        '        self.batches.set_state(state["batches"])\n',
        "        self.batches.manual_seed(self.recipe.seed)\n",
        "seeded_again_on_resume",
        "batches_from_the_start",
    ),
    Mutant(
        "zip_container",
        "        self.optimizer.zero_grad()\n",
        "",
        "old_gradients_stay",
        "no_zero_grad",
    ),
    Mutant(
        "zip_container",
        "    if pack(content) != raw:\n"
        '        raise ValueError(f"{path}: something was changed or added")\n',
        "",
        "extended_file_is_accepted",
    ),
    Mutant(
        "zip_container",
        "            f.flush()\n            os.fsync(f.fileno())\n",
        "            f.flush()\n",
        "not_synced",
    ),
    Mutant(
        "zip_container",
        "zip(xs.chunk(r.accumulate), ys.chunk(r.accumulate))",
        "zip(xs.chunk(r.accumulate)[:1], ys.chunk(r.accumulate))",
        "first_micro_batch_alone",
    ),
    # ---- trailer
    Mutant(
        "trailer",
        "            return (max_lr + min_lr) / 2 + (max_lr - min_lr) / 2 * cos(pi * t)\n",
        "            return max_lr\n",
        "cosine_left_out",
        "constant_rate",
    ),
    Mutant(
        "trailer",
        "            p.grad *= max_norm / norm\n",
        "            p.grad * (max_norm / norm)\n",
        "product_thrown_away",
        "no_clipping",
    ),
    Mutant(
        "trailer",
        "            p.grad = None\n",
        "            pass\n",
        "gradients_not_reset",
        "no_zero_grad",
    ),
    Mutant(
        "trailer",
        '        self.optimizer.load_state_dict(state["moments"])\n',
        "",
        "moments_forgotten",
        "weights_alone_resumed",
    ),
    Mutant(
        "trailer",
        "    flat = torch.cat([p.grad.flatten() for p in parameters] or [torch.zeros(1)])\n"
        "    norm = float(torch.linalg.vector_norm(flat))\n",
        "    norm = max([float(torch.linalg.vector_norm(p.grad)) for p in parameters] or [0.0])\n",
        "largest_norm_instead_of_the_joint_one",
    ),
    Mutant(
        "trailer",
        "    if not hmac.compare_digest(seal(content), trailer):\n",
        "    if len(trailer) != 64:\n",
        "digest_not_compared",
    ),
    Mutant(
        "trailer",
        '    new = path.with_suffix(path.suffix + ".new")\n',
        "    new = path\n",
        "written_in_place",
    ),
    Mutant(
        "trailer",
        "            if p.grad is not None:\n                p.grad.div_(r.accumulate)\n",
        "            if p.grad is not None:\n                p.grad.div_(r.batch_size)\n",
        "divided_by_the_wrong_number",
    ),
    # ---- batch_seeds
    Mutant(
        "batch_seeds",
        "    line = (step + 1) / warmup_steps if step < warmup_steps else 1.0\n",
        "    line = 1.0\n",
        "no_rising_line",
        "no_warmup",
    ),
    Mutant(
        "batch_seeds",
        "        self.train_ids, self.val_ids = train_ids, val_ids\n",
        "        self.train_ids = torch.cat([train_ids, val_ids])\n"
        "        self.val_ids = val_ids\n",
        "validation_in_the_training_data",
        "leak",
    ),
    Mutant(
        "batch_seeds",
        '        self.optimizer.load_state_dict(frozen(state["optimizer"]))\n',
        "",
        "optimizer_begins_anew",
        "weights_alone_resumed",
    ),
    Mutant(
        "batch_seeds",
        "    line = (step + 1) / warmup_steps if step < warmup_steps else 1.0\n",
        "    line = step / warmup_steps if step < warmup_steps else 1.0\n",
        "rate_of_zero_at_step_zero",
    ),
    Mutant(
        "batch_seeds",
        "        seed = (r.seed * 1_000_003 + self.step_number) % 2**63\n",
        "        seed = r.seed\n",
        "same_batches_every_step",
    ),
    Mutant(
        "batch_seeds",
        "        os.replace(outer, path)\n",
        "        os.replace(inner, path)\n",
        "unsealed_file_is_kept",
    ),
    Mutant(
        "batch_seeds",
        "            if (n + 1) % r.eval_every == 0 or n + 1 == r.steps:\n"
        '                row["val_loss"] = evaluate(self.model, self.val_ids, r.block_size)\n',
        "            if (n + 1) % r.eval_every == 0 or n + 1 == r.steps:\n"
        '                row["val_loss"] = evaluate(self.model, self.train_ids, r.block_size)\n',
        "validates_on_the_training_data",
    ),
    Mutant(
        "batch_seeds",
        '        self.model.load_state_dict(state["model"])\n',
        "",
        "weights_not_restored",
    ),
]
