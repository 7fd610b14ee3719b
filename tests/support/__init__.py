"""The small worlds that tests share: corpora, pools, teachers, losses."""
