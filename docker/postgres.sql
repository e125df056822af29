-- Run once, when the database is made. Marquez must own its database: PostgreSQL 15 lets nobody else create in it.
CREATE ROLE marquez LOGIN PASSWORD 'marquez';
CREATE DATABASE marquez OWNER marquez;
