# A thin face over `cargo xtask`; each target says what it needs and sets it up.
.PHONY: demo up test build setup bench

demo:
	cargo xtask setup
	cargo xtask demo

up:
	cargo xtask setup
	cargo xtask up

test:
	cargo xtask test

build:
	cargo xtask build

setup:
	cargo xtask setup

# make bench NAME=proxy
bench:
	cargo xtask bench $(NAME)
