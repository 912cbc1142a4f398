"""Other people's engines; each runs in an environment that has nothing of ours."""
