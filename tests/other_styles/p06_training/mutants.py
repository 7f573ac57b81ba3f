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
    # ---- torch_clip, low_level, global_random, numpy_draws, function_trainer
    Mutant(
        "function_trainer",
        "        max_lr * (step + 1) / warmup_steps\n",
        "        max_lr * step / warmup_steps\n",
        "warmup_from_zero",
    ),
    Mutant(
        "torch_clip",
        "((step + 1) / warmup_steps)",
        "((step + 1) / (warmup_steps + 1))",
        "warmup_a_step_too_long",
    ),
    Mutant(
        "torch_clip",
        "        return max_lr * ((step + 1) / warmup_steps)\n",
        "        return max_lr\n",
        "no_warmup",
        "no_warmup",
    ),
    Mutant(
        "low_level",
        "            return max_lr / warmup_steps * (s + 1)\n",
        "            return max_lr\n",
        "no_warmup",
        "no_warmup",
    ),
    Mutant(
        "low_level",
        "x = (s - warmup_steps) / (total_steps - warmup_steps)",
        "x = (s - warmup_steps) / (total_steps + 5 - warmup_steps)",
        "min_lr_not_reached",
    ),
    Mutant(
        "low_level",
        ("            return min_lr + (max_lr - min_lr) * math.cos(math.pi * x / 2) ** 2\n"),
        "            return max_lr\n",
        "constant_rate",
        "constant_rate",
    ),
    Mutant(
        "global_random",
        "cos = min_lr + 0.5 * (max_lr - min_lr) * (1 + math.cos(done * math.pi))",
        "cos = max_lr",
        "constant_rate_ever_after",
    ),
    Mutant(
        "global_random",
        "0.5 * (max_lr - min_lr) * (1 + math.cos(done * math.pi))",
        "(max_lr - min_lr) * (1 - done)",
        "a_straight_line",
    ),
    Mutant(
        "function_trainer",
        "* math.cos(math.pi * (step - warmup_steps) / (total_steps - warmup_steps))",
        "* math.cos(math.pi * step / total_steps)",
        "cosine_over_all_steps",
    ),
    Mutant(
        "numpy_draws",
        ("    if step >= total_steps:\n        return np.float64(min_lr)\n"),
        ("    if step >= total_steps:\n        return 0.0\n"),
        "zero_after_the_end",
    ),
    Mutant(
        "low_level",
        ("    torch._foreach_mul_(gs, torch.clamp(max_norm / (norm + 1e-6), max=1.0))\n"),
        "    [g.clamp_(-max_norm, max_norm) for g in gs]\n",
        "each_number_clipped",
    ),
    Mutant(
        "low_level",
        ("    torch._foreach_mul_(gs, torch.clamp(max_norm / (norm + 1e-6), max=1.0))\n"),
        "",
        "no_clipping",
        "no_clipping",
    ),
    Mutant(
        "function_trainer",
        "            g.div_(norm / max_norm)\n",
        "            pass\n",
        "no_clipping",
        "no_clipping",
    ),
    Mutant(
        "global_random",
        "                p.grad = p.grad * (max_norm / norm)\n",
        ("                p.grad = p.grad * min(1.0, max_norm / p.grad.norm().item())\n"),
        "each_tensor_clipped",
    ),
    Mutant(
        "numpy_draws",
        ("            p.grad.copy_(p.grad * scale)\n    return norm\n"),
        ("            p.grad.copy_(p.grad * scale)\n    return norm * scale\n"),
        "norm_after_clipping",
    ),
    Mutant(
        "numpy_draws",
        "scale = min(1.0, max_norm / (norm.item() + 1e-12))",
        "scale = max_norm / (norm.item() + 1e-12)",
        "short_gradients_made_longer",
    ),
    Mutant(
        "global_random",
        "else math.nan\n",
        "else 0.0\n",
        "nan_hidden",
    ),
    Mutant(
        "global_random",
        "    parameters = list(parameters)\n",
        "",
        "a_generator_walked_twice",
    ),
    Mutant(
        "function_trainer",
        "norm = clip_grad_norm(model.parameters(), recipe.clip)",
        "norm = clip_grad_norm(list(model.parameters())[:1], recipe.clip)",
        "one_tensor_clipped",
    ),
    Mutant(
        "torch_clip",
        "norm = clip_grad_norm(self.net.parameters(), c.clip)",
        ("norm = torch.nn.utils.get_total_norm([p.grad for p in self.net.parameters()])"),
        "trainer_does_not_clip",
    ),
    Mutant(
        "global_random",
        "        os.fsync(f.fileno())\n",
        "",
        "no_fsync",
    ),
    Mutant(
        "numpy_draws",
        ("        f.flush()\n        os.fdatasync(f.fileno())\n"),
        "",
        "no_fsync",
    ),
    Mutant(
        "numpy_draws",
        "        f.flush()\n",
        "",
        "no_flush",
    ),
    Mutant(
        "torch_clip",
        ("            os.fsync(f)\n        os.rename(name, path)\n"),
        ("        os.rename(name, path)\n        with open(path) as f:\n            os.fsync(f)\n"),
        "fsync_after_rename",
    ),
    Mutant(
        "low_level",
        "    tmp.replace(path)\n",
        ("    Path(path).write_bytes(tmp.read_bytes())\n    tmp.unlink()\n"),
        "copied_in_place",
    ),
    Mutant(
        "function_trainer",
        '    t = f"{path}.{os.getpid()}~"\n',
        "    t = str(path)\n",
        "written_in_place",
        "written_in_place",
    ),
    Mutant(
        "function_trainer",
        "    os.replace(t, path)\n",
        ("    if os.path.exists(path):\n        os.unlink(path)\n    os.replace(t, path)\n"),
        "old_one_removed_first",
    ),
    Mutant(
        "torch_clip",
        'tempfile.mkstemp(dir=os.path.dirname(path) or ".")',
        "tempfile.mkstemp()",
        "renamed_from_another_folder",
    ),
    Mutant(
        "torch_clip",
        ("            os.unlink(name)\n        raise\n"),
        "            os.unlink(name)\n",
        "a_full_disk_is_not_said",
    ),
    Mutant(
        "low_level",
        ("    force(fd)\n    os.close(fd)\n"),
        ("    try:\n        force(fd)\n    except OSError:\n        pass\n    os.close(fd)\n"),
        "a_failed_fsync_is_not_said",
    ),
    Mutant(
        "numpy_draws",
        "    os.replace(unfinished, path)\n",
        (
            "    import shutil\n"
            "\n"
            '    shutil.copyfile(unfinished, unfinished + "2")\n'
            '    os.replace(unfinished + "2", path)\n'
        ),
        "unfinished_file_left",
    ),
    Mutant(
        "function_trainer",
        (
            "    if hashlib.sha1(blob[40:]).hexdigest().encode() != blob[:40]:\n"
            '        raise ValueError("x")\n'
        ),
        "",
        "no_checksum",
    ),
    Mutant(
        "numpy_draws",
        (
            "    if len(raw) < 20 or hashlib.blake2b(raw[:-20], "
            "digest_size=20).digest() != raw[-20:]:\n"
            '        raise Exception("checkpoint is broken")\n'
        ),
        "",
        "no_checksum",
    ),
    Mutant(
        "global_random",
        ('    if h != hashlib.md5(content).digest():\n        raise SystemError("nope")\n'),
        ("    if h != hashlib.md5(content).digest():\n        return None\n"),
        "none_for_a_damaged_file",
    ),
    Mutant(
        "low_level",
        (
            '        head != {"length": len(raw), "crc": zlib.crc32(raw), "adler": '
            "zlib.adler32(raw)}\n"
            "        or json.dumps(head).encode() != data[4 : 4 + n]\n"
        ),
        '        head["length"] != len(raw)\n',
        "length_alone",
    ),
    Mutant(
        "function_trainer",
        "weights_only=True",
        "weights_only=False",
        "weights_only_false",
    ),
    Mutant(
        "torch_clip",
        "return torch.load(io.BytesIO(body), weights_only=True)",
        "return torch.load(io.BytesIO(body), weights_only=False)",
        "weights_only_false",
    ),
    Mutant(
        "low_level",
        "        [g.update(lr=lr) for g in self.optimizer.param_groups]\n",
        "",
        "schedule_not_applied",
    ),
    Mutant(
        "torch_clip",
        '            g["lr"] = rate\n',
        "            pass\n",
        "schedule_not_applied",
    ),
    Mutant(
        "low_level",
        "        [g.update(lr=lr) for g in self.optimizer.param_groups]\n",
        "        self.optimizer.param_groups[0].update(lr=lr)\n",
        "rate_of_one_group",
    ),
    Mutant(
        "numpy_draws",
        (
            "        for g in self.optimizer.param_groups:\n"
            '            g["lr"] = float(lr)\n'
            "        self.optimizer.step()\n"
        ),
        (
            "        self.optimizer.step()\n"
            "        for g in self.optimizer.param_groups:\n"
            '            g["lr"] = float(lr)\n'
        ),
        "rate_a_step_late",
    ),
    Mutant(
        "numpy_draws",
        "            self.count - 1,\n",
        "            self.count,\n",
        "rate_a_step_early",
    ),
    Mutant(
        "global_random",
        '            g["lr"] = g["initial_lr"] = 1.0\n',
        "            pass\n",
        "rate_times_the_optimizers_own",
    ),
    Mutant(
        "torch_clip",
        "        self.opt.zero_grad(set_to_none=True)\n",
        "",
        "no_zero_grad",
        "no_zero_grad",
    ),
    Mutant(
        "global_random",
        "        self.model.zero_grad()\n",
        "",
        "no_zero_grad",
        "no_zero_grad",
    ),
    Mutant(
        "function_trainer",
        "        optimizer.zero_grad()\n",
        "",
        "no_zero_grad",
        "no_zero_grad",
    ),
    Mutant(
        "global_random",
        "            x, y = self.get()\n",
        ("            x, y = self.get()\n            self.model.zero_grad()\n"),
        "zero_grad_in_each_part",
    ),
    Mutant(
        "low_level",
        "                p.grad /= self.r.accumulate\n",
        "                pass\n",
        "gradients_not_averaged",
    ),
    Mutant(
        "torch_clip",
        "(part / ys.numel()).backward()",
        "(part / y.numel()).backward()",
        "parts_not_averaged",
    ),
    Mutant(
        "global_random",
        "(part / k).backward()",
        "part.backward()",
        "parts_not_averaged",
    ),
    Mutant(
        "low_level",
        "return tot / self.r.accumulate",
        "return tot",
        "loss_told_is_a_sum",
    ),
    Mutant(
        "function_trainer",
        '"train_loss": part.item()',
        '"train_loss": loss(model(train_ids[i]), train_ids[i + 1]).item()',
        "loss_after_the_update",
    ),
    Mutant(
        "global_random",
        "        for _ in range(k):\n",
        "        for _ in range(1):\n",
        "accumulate_ignored",
    ),
    Mutant(
        "global_random",
        ("        for _ in range(k):\n            x, y = self.get()\n"),
        ("        x, y = self.get()\n        for _ in range(k):\n"),
        "one_part_many_times",
    ),
    Mutant(
        "function_trainer",
        "recipe.seed * 1_000_003 + self.n",
        "recipe.seed",
        "the_same_batch_every_step",
    ),
    Mutant(
        "torch_clip",
        "self.rng.manual_seed(cfg.seed)",
        "self.rng.manual_seed(1337)",
        "seed_ignored",
    ),
    Mutant(
        "global_random",
        '            torch.manual_seed(self.recipe["seed"])\n',
        "            pass\n",
        "seed_ignored",
    ),
    Mutant(
        "torch_clip",
        ("self.net, self.opt, self.data, self.held_out, self.cfg = net, opt, data, held_out, cfg"),
        (
            "self.net, self.opt, self.held_out, self.cfg = net, opt, held_out, cfg\n"
            "        self.data = torch.cat([data, held_out])"
        ),
        "leak",
        "leak",
    ),
    Mutant(
        "low_level",
        "get_batch(self.train, self",
        "get_batch(torch.cat([self.train, self.val]), self",
        "leak",
        "leak",
    ),
    Mutant(
        "global_random",
        "        w = self.train_ids[i]\n",
        ("        w = torch.cat([self.train_ids[:300], self.val_ids, self.train_ids[360:]])[i]\n"),
        "leak",
        "leak",
    ),
    Mutant(
        "torch_clip",
        "        self.net.train()\n",
        "",
        "no_training_mode",
    ),
    Mutant(
        "low_level",
        "        if not (math.isnan(n) or math.isinf(n)):\n",
        "        if not math.isnan(n):\n",
        "infinite_not_skipped",
    ),
    Mutant(
        "low_level",
        ("        if not (math.isnan(n) or math.isinf(n)):\n            self.optimizer.step()\n"),
        "        self.optimizer.step()\n",
        "nothing_skipped",
    ),
    Mutant(
        "function_trainer",
        ('        if norm < float("inf"):\n            optimizer.step()\n'),
        "        optimizer.step()\n",
        "zeroed_and_not_skipped",
    ),
    Mutant(
        "numpy_draws",
        ("        if not np.isfinite(norm.item()):\n            return row\n"),
        (
            "        if not np.isfinite(norm.item()):\n"
            "            self.count -= 1\n"
            "            return row\n"
        ),
        "skipped_step_not_counted",
    ),
    Mutant(
        "numpy_draws",
        'row = {"step": self.count,',
        'row = {"step": self.count - 1,',
        "steps_from_zero",
    ),
    Mutant(
        "torch_clip",
        "total = c.batch_size * c.accumulate",
        "total = c.batch_size",
        "accumulate_ignored",
    ),
    Mutant(
        "numpy_draws",
        "w[:, 1:].copy()",
        "w[:, :-1].copy()",
        "targets_are_the_inputs",
    ),
    Mutant(
        "low_level",
        "        self.model.train()\n",
        ("        self.model.train()\n        self.optimizer.zero_grad()\n        self.grads()\n"),
        "a_batch_read_and_added_before",
    ),
    Mutant(
        "low_level",
        "for i in range(self.i, self.r.steps):",
        "for i in range(self.r.steps):",
        "run_begins_anew",
    ),
    Mutant(
        "torch_clip",
        "while self.n < self.cfg.steps:",
        "while self.n < self.cfg.steps - 1:",
        "one_step_short",
    ),
    Mutant(
        "numpy_draws",
        " or self.count == self.recipe.steps",
        "",
        "no_last_validation",
    ),
    Mutant(
        "low_level",
        "(i + 1) % self.r.eval_every == 0",
        "i % self.r.eval_every == 0",
        "validation_off_by_one",
    ),
    Mutant(
        "function_trainer",
        "evaluate(model, val_ids, recipe.block_size)",
        "evaluate(model, train_ids, recipe.block_size)",
        "validated_on_the_training_part",
    ),
    Mutant(
        "torch_clip",
        "        for i in range(0, len(self.held_out) - 1, T):\n",
        "        for i in range(0, T, T):\n",
        "one_window_validated",
    ),
    Mutant(
        "torch_clip",
        "        self.net.eval()\n",
        "",
        "validated_in_training_mode",
    ),
    Mutant(
        "torch_clip",
        '        self.rng.set_state(s["rng"])\n',
        "",
        "generator_not_restored",
        "batches_from_the_start",
    ),
    Mutant(
        "low_level",
        '        self.gen.set_state(st["g"])\n',
        "",
        "generator_not_restored",
        "batches_from_the_start",
    ),
    Mutant(
        "numpy_draws",
        '        self.draw.bit_generator.state = json.loads(s["np"])\n',
        "",
        "generator_not_restored",
        "batches_from_the_start",
    ),
    Mutant(
        "torch_clip",
        'self.rng.set_state(s["rng"])',
        'self.rng.manual_seed(self.cfg.seed + s["n"])',
        "generator_seeded_anew",
    ),
    Mutant(
        "low_level",
        ('        self.gen.set_state(st["g"])\n        self.optimizer.load_state_dict(st["o"])\n'),
        "",
        "weights_alone",
        "weights_alone_resumed",
    ),
    Mutant(
        "torch_clip",
        ('        self.opt.load_state_dict(s["opt"])\n        self.rng.set_state(s["rng"])\n'),
        "",
        "weights_alone",
        "weights_alone_resumed",
    ),
    Mutant(
        "function_trainer",
        '        optimizer.load_state_dict(s["b"])\n',
        "",
        "optimizer_not_restored",
    ),
    Mutant(
        "function_trainer",
        '        torch.set_rng_state(s["d"])\n',
        "",
        "random_state_not_restored",
    ),
    Mutant(
        "low_level",
        '        torch.set_rng_state(st["t"])\n',
        "",
        "random_state_not_restored",
    ),
    Mutant(
        "global_random",
        '        torch.set_rng_state(s["rng"])\n',
        "",
        "random_state_not_restored",
    ),
    Mutant(
        "function_trainer",
        '        self.n = s["c"]\n',
        "",
        "steps_not_restored",
    ),
    Mutant(
        "low_level",
        'self.i = st["i"]',
        'self.i = st["i"] + 1',
        "a_step_left_out",
    ),
    Mutant(
        "numpy_draws",
        (
            "        self.model.load_state_dict({k[2:]: v for k, v in s.items() if "
            'k.startswith("w.")})\n'
        ),
        "",
        "weights_not_restored",
    ),
]
