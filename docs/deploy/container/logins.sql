-- After ../postgresql/roles.sql, for compose.yaml alone: the passwords that it uses, and the shop's own database.
ALTER ROLE saga_migrate PASSWORD 'change-me-migrate';
ALTER ROLE saga_run PASSWORD 'change-me-run';
ALTER ROLE saga_read PASSWORD 'change-me-read';
CREATE ROLE shop LOGIN PASSWORD 'change-me-shop';
CREATE DATABASE shop OWNER shop;
