"""The reference: every op of the contract written plainly on an array module, numpy or cupy."""
