"""The offline stage, once per corpus and teacher: embed, index, score, select, weigh, shard."""
