"""Networks: simulate what they learn from, train, package, load, evaluate."""
