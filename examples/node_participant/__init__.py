"""A participant that is written in Node."""
