test:
	@bash tools/test.sh
