"""Wrong edits of the styles of p03."""

from .. import Mutant

MUTANTS = [
    # ---- minbpe_like
    Mutant(
        "minbpe_like",
        "        return re.findall(self.compiled_pattern, text)\n",
        "        return [text]\n",
        "pattern_never_applied",
        "no_split",
    ),
    Mutant(
        "minbpe_like",
        '.decode("utf-8", errors="replace")\n\n    def _encode_chunk',
        '.decode("utf-8")\n\n    def _encode_chunk',
        "decoding_is_strict",
        "strict_decoding",
    ),
    Mutant(
        "minbpe_like",
        "            special = {}\n        elif",
        "            special = self.special_tokens\n        elif",
        "none_means_all",
        "text_as_specials",
    ),
    Mutant(
        "minbpe_like",
        "                ids.append(special[part])\n",
        "                ids.extend(self.encode_ordinary(part))\n",
        "specials_spelled_out",
        "specials_as_text",
    ),
    Mutant(
        "minbpe_like",
        '            pair = min(stats, key=lambda p: self.merges.get(p, float("inf")))\n',
        "            pair = max(stats, key=lambda p: (p in self.merges, stats[p]))\n",
        "most_frequent_pair_of_the_text_first",
    ),
    Mutant(
        "minbpe_like",
        "            newids.append(idx)\n            i += 2\n",
        "            newids.append(idx)\n            i += 1\n",
        "second_half_kept",
    ),
    Mutant(
        "minbpe_like",
        "        idx = 256\n        with open",
        "        idx = 257\n        with open",
        "ids_after_loading_off_by_one",
    ),
    Mutant(
        "minbpe_like",
        "        for chunk in self._chunks(text):\n            ids.extend(",
        "        for chunk in [text]:\n            ids.extend(",
        "encoding_does_not_cut",
    ),
    # ---- token_objects
    Mutant(
        "token_objects",
        "        return [m.group() for m in self.compiled.finditer(text)]\n",
        "        return text.split()\n",
        "split_at_spaces",
        "space_thrown_away",
    ),
    Mutant(
        "token_objects",
        "    def _read_pattern(self, pattern):\n        self.compiled = regex.compile(pattern)\n",
        "    def _read_pattern(self, pattern):\n        pass\n",
        "pattern_of_the_file_ignored",
        "other_pattern",
    ),
    Mutant(
        "token_objects",
        "            first = min(known, key=lambda token: token.id)\n",
        "            first = max(known, key=lambda token: len(token.content))\n",
        "longest_token_first",
        "longest_match",
    ),
    Mutant(
        "token_objects",
        'errors="replace")',
        'errors="strict")',
        "strict",
        "strict_decoding",
    ),
    Mutant(
        "token_objects",
        "next(pair for pair, n in counts.items() if n == best)",
        "next(pair for pair in reversed(counts) if counts[pair] == best)",
        "last_of_the_ties",
    ),
    Mutant(
        "token_objects",
        "counts.get(pair, 0) + number[piece]",
        "counts.get(pair, 0) + 1",
        "equal_pieces_count_once",
    ),
    Mutant(
        "token_objects",
        "            next(rest)\n",
        "            next(rest), next(rest, None)\n",
        "skips_one_too_many",
    ),
    # ---- linked_list
    Mutant(
        "linked_list",
        "        return re.findall(self.pattern, text) if self.pattern else [text]\n",
        "        return [text]\n",
        "one_chunk",
        "no_split",
    ),
    Mutant(
        "linked_list",
        "            where[node.id, node.next.id].add(node)\n    merges = {}\n",
        "            if node.before is None or not node.before.id == node.id == node.next.id:\n"
        "                where[node.id, node.next.id].add(node)\n    merges = {}\n",
        "a_run_is_one_pair",
        "runs_count_once",
    ),
    Mutant(
        "linked_list",
        "        self.pattern = lines[1]\n",
        "",
        "second_line_skipped",
        "other_pattern",
    ),
    Mutant(
        "linked_list",
        "                ids.append(self.specials[part])\n            elif part:\n",
        "                pass\n            if part:\n",
        "specials_encoded_as_bytes",
        "specials_as_text",
    ),
    Mutant(
        "linked_list",
        "        new_id, place = heapq.heappop(heap)\n",
        "        new_id, place = heap.pop()\n",
        "popped_from_the_wrong_end",
    ),
    Mutant(
        "linked_list",
        "        pair = min(ties, key=lambda pair: min(node.place for node in where[pair]))\n",
        "        pair = min(ties)\n",
        "ties_to_the_smallest_pair",
    ),
    Mutant(
        "linked_list",
        "            if before is not None:\n"
        "                where[before.id, new_id].add(before)\n",
        "",
        "new_pair_on_the_left_forgotten",
    ),
    # ---- numpy_arrays
    Mutant(
        "numpy_arrays",
        "            if token not in allowed and token in text:\n",
        '            if allowed and allowed_special != "all" and token not in allowed:\n'
        '                text = text.replace(token, "")\n'
        "            if token not in allowed and token in text:\n",
        "forbidden_specials_removed",
    ),
    Mutant(
        "numpy_arrays",
        "        return regex.findall(self.pattern, text)\n",
        '        return text.split(" ")\n',
        "words_without_their_space",
        "space_thrown_away",
    ),
    Mutant(
        "numpy_arrays",
        "        at = at[(at - start) % 2 == 0]\n",
        "        pass\n",
        "runs_swallowed_whole",
    ),
    Mutant(
        "numpy_arrays",
        '        if allowed_special == "all":\n            allowed = list(known)\n'
        '        elif allowed_special == "none_raise":\n            allowed = []\n',
        '        if allowed_special in ("all", "none_raise"):\n            allowed = list(known)\n',
        "specials_by_default",
        "text_as_specials",
    ),
    Mutant(
        "numpy_arrays",
        "            ids += [known[token]] if k else []\n",
        "            ids += self._encode(token) if k else []\n",
        "special_encoded_like_text",
        "specials_as_text",
    ),
    Mutant(
        "numpy_arrays",
        '            self._use(f.readline()[:-1].decode("utf-8"))\n',
        "            f.readline()\n",
        "pattern_read_and_dropped",
        "other_pattern",
    ),
    Mutant(
        "numpy_arrays",
        "            best = np.lexsort((first, -counts))[0]\n",
        "            best = np.argmax(counts)\n",
        "ties_to_the_smallest_key",
    ),
    Mutant(
        "numpy_arrays",
        "    inside = np.flatnonzero((a != BETWEEN) & (b != BETWEEN))\n",
        "    inside = np.flatnonzero(a != BETWEEN)\n",
        "pairs_with_the_separator",
    ),
    # ---- strings
    Mutant(
        "strings",
        "    return WALL.join(chunk.encode",
        '    return "".join(chunk.encode',
        "walls_torn_down",
        "no_split",
    ),
    Mutant(
        "strings",
        '.decode("utf-8", errors="replace")',
        '.decode("utf-8", errors="ignore")',
        "invalid_bytes_dropped",
    ),
    Mutant(
        "strings",
        "        self.pattern, self.special_tokens, self.merges = read(path)\n",
        "        _, self.special_tokens, self.merges = read(path)\n",
        "keeps_its_own_pattern",
        "other_pattern",
    ),
    Mutant(
        "strings",
        '    if allowed not in ("all", "none"):\n',
        "    if False:\n",
        "forbidden_specials_pass_as_text",
    ),
    Mutant(
        "strings",
        "    for (a, b), new in merges.items():\n"
        "        text = text.replace(chr(a) + chr(b), chr(new))\n",
        "    for (a, b), new in reversed(merges.items()):\n"
        "        text = text.replace(chr(a) + chr(b), chr(new))\n",
        "merges_applied_backwards",
    ),
    Mutant(
        "strings",
        "        text = text.replace(a + b, chr(new))\n",
        "        text = text.replace(a + b, chr(new), 1)\n",
        "only_the_first_occurrence",
    ),
    Mutant(
        "strings",
        "{p: n for p, n in get_stats(text).items() if WALL not in p}",
        "{(a, b): text.count(a + b) for a, b in pairwise(text) if WALL not in a + b}",
        "counts_without_overlap",
    ),
    Mutant(
        "strings",
        '        raise ValueError("vocab_size counts the 256 bytes too")\n',
        "        vocab_size += 256\n",
        "size_taken_as_number_of_merges",
    ),
]
