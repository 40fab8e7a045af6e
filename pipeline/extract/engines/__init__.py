"""Who runs the teacher: this process, Ray actors on one machine or many, or the ranks that torchrun
has started."""
