"""Helpers that the tests share: small corpora, pools, teachers and losses."""
