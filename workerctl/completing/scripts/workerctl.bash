# shellcheck shell=bash
# Completion of workerctl for bash: `workerctl completion bash`. What to offer is workerctl's
# own to say (`workerctl __complete`); here is only how bash wants it.

# The words as they were typed: bash cuts them at = and : as well.
__workerctl_words() {
    local rest=${COMP_LINE:0:COMP_POINT} word i
    words=() at=()
    for ((i = 0; i <= COMP_CWORD; i++)); do
        word=${COMP_WORDS[i]}
        if [[ $i -eq 0 || $rest == [[:space:]]* ]]; then
            rest=${rest#"${rest%%[![:space:]]*}"}
            words+=('') at+=("$i")
        fi
        [[ $i -lt $COMP_CWORD ]] || word=$rest # as far as the cursor
        words[${#words[@]} - 1]+=$word
        rest=${rest#"$word"}
    done
}

__workerctl_command() { # the words from this one on are another command's
    if declare -F _comp_command_offset >/dev/null; then
        _comp_command_offset "${at[$1]}"
    elif declare -F _command_offset >/dev/null; then
        _command_offset "${at[$1]}"
    elif [[ ${#words[@]} -eq $(($1 + 1)) ]]; then
        mapfile -t COMPREPLY < <(compgen -c -- "${words[$1]}")
    else
        compopt -o default
    fi
}

__workerctl_paths() { # compgen's option, what stands before the path
    local word=${words[${#words[@]} - 1]} path
    if [[ -z $1 || $word == "$cut"* && ${1#"$cut"} == '' ]]; then
        compopt -o filenames
    fi
    while IFS= read -r path; do
        COMPREPLY+=("${1#"$cut"}$path")
    done < <(compgen "$2" -- "${word#"$1"}")
    [[ ${#COMPREPLY[@]} -gt 0 ]] || compopt -o nospace
}

_workerctl() {
    local words at answer kind place word cut line
    COMPREPLY=()
    __workerctl_words
    mapfile -t answer < <(command "$1" __complete "${words[@]:1}" 2>/dev/null </dev/null)
    [[ ${#answer[@]} -gt 0 ]] || return 0
    kind=${answer[0]%%$'\t'*} place=${answer[0]#*$'\t'}
    word=${words[${#words[@]} - 1]}
    # What bash has cut off already, and keeps.
    cut=${word%"${word##*[=:]}"}
    [[ $COMP_WORDBREAKS == *=*:* || $COMP_WORDBREAKS == *:*=* ]] || cut=
    case $kind in
    files) __workerctl_paths "$place" -f ;;
    directories) __workerctl_paths "$place" -d ;;
    command) __workerctl_command "$((place + 1))" ;;
    words)
        for line in "${answer[@]:1}"; do
            COMPREPLY+=("${line%%$'\t'*}")
        done
        COMPREPLY=("${COMPREPLY[@]#"$cut"}")
        compopt -o nosort
        [[ ${#COMPREPLY[@]} -ne 1 || ${COMPREPLY[0]} != *[=:] ]] || compopt -o nospace
        ;;
    esac
}

complete -F _workerctl workerctl
