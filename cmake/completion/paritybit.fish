# Completion of paritybit for fish. The program itself knows its commands, flags, references and models.
paritybit completion fish | source
