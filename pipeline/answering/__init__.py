"""Answer the prompts of a data set with a whole causal LM, as a new data set."""
