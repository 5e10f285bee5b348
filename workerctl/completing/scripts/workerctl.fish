# Completion of workerctl for fish: `workerctl completion fish`. What to offer is workerctl's
# own to say (`workerctl __complete`); here is only how fish wants it.

function __workerctl_complete
    set -l words (commandline -opc)
    set -l typed (commandline -ct)
    set -l word (string unescape -- $typed 2>/dev/null)
    or set word (string trim -l -c '\'"' -- $typed)
    set -l program $words[1]
    set -e words[1]
    set -l answer (command $program __complete $words $word 2>/dev/null </dev/null)
    or return
    set -l head (string split -m 1 \t -- $answer[1])
    set -l path (string sub -s (math 1 + (string length -- "$head[2]")) -- "$word")
    switch $head[1]
        case words
            printf '%s\n' $answer[2..-1]
        case files
            printf '%s\n' "$head[2]"(__fish_complete_path "$path")
        case directories
            printf '%s\n' "$head[2]"(__fish_complete_directories "$path" '')
        case command
            set -l from (math $head[2] + 1)
            set -l line
            test $from -le (count $words); and set line (string escape -- $words[$from..-1])
            complete -C (string join ' ' -- $line "$word")
    end
end

complete -c workerctl -f -k -a '(__workerctl_complete)'
