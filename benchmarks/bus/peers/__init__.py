"""Other people's buses doing the same work, each in an environment that has nothing of ours."""
