# Records a full trace of MODEL by the native engine into OUT, anew.
file(REMOVE_RECURSE ${OUT})
execute_process(COMMAND ${PARITYBIT} trace --engine native --model ${MODEL} --prompt "And God said, Let there be light"
                        --max-tokens 3 --level full --out ${OUT}
                COMMAND_ERROR_IS_FATAL ANY)
