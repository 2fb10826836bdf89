package doccheck

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

// Command is a command that the documentation shows.
type Command struct {
	File string
	Args []string // the program and its arguments
}

var (
	block      = regexp.MustCompile("(?ms)^ *```(\\w*)\n(.*?)\n *```$")
	indented   = regexp.MustCompile(`(?m)^ {4}(\S.*)$`)
	span       = regexp.MustCompile("`([^`\n]+)`")
	prompt     = regexp.MustCompile(`(?m)^\$ (.*)$`)
	comment    = regexp.MustCompile(`(?m)^//\t(\S.*)$`)
	helpLine   = regexp.MustCompile(`(?m)^  (clerkinvite .*)$`)
	quoted     = regexp.MustCompile(`\\?"(clerkinvite [a-z][^"\\]*)\\?"`)
	step       = regexp.MustCompile(`(?m)^ +(?:- )?run: (.*)$`)
	expression = regexp.MustCompile(`\$\{\{.*?\}\}`) // of the workflow
	prefix     = regexp.MustCompile(`^"?[A-Za-z_]+=|^(do|done|sudo|env)$`)
	shellToken = regexp.MustCompile(`#.*|(?:'[^']*'|"(?:\\.|[^"\\])*"|\$\([^)]*\)|[^\s'"|;&()<>])+|[<>]+|[|;&()]+|\n`)
	knownTool  = regexp.MustCompile(`^(clerkinvite|go|make|bash|scripts/\S+)$`)
)

// Files returns the files below the root, except test data and hidden files other than the workflow.
func Files(root string) (files []string, err error) {
	err = filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		name := d.Name()
		skip := path != root && (strings.HasPrefix(name, ".") && name != ".github" || name == "testdata" || name == "node_modules")
		switch {
		case err != nil:
			return err
		case skip && d.IsDir():
			return filepath.SkipDir
		case !skip && !d.IsDir():
			files = append(files, path)
		}
		return nil
	})
	return files, err
}

// Commands returns the commands in pages, in comments and help texts of programs, and in the workflow. Outside shell scripts it
// recognises only commands of this repository, of go and of make.
func Commands(root string) (found []Command, err error) {
	files, err := Files(root)
	for _, file := range files {
		text, err := os.ReadFile(file) // #nosec G304 -- a file of this repository
		if err != nil {
			return nil, err
		}
		var commands [][]string
		switch {
		case strings.HasSuffix(file, ".md"):
			commands = inPage(string(text))
		case strings.HasSuffix(file, ".go") && !strings.HasSuffix(file, "_test.go"):
			commands = inCode(string(text))
		case strings.HasSuffix(file, ".yml"):
			commands = each(step, expression.ReplaceAllString(string(text), "x"))
		}
		for _, args := range commands {
			found = append(found, Command{file, args})
		}
	}
	return found, err
}

func inPage(text string) (commands [][]string) {
	for _, b := range block.FindAllStringSubmatch(text, -1) {
		switch b[1] {
		case "sh":
			commands = append(commands, words(b[2])...)
		case "console":
			commands = append(commands, each(prompt, b[2])...)
		}
	}
	text = block.ReplaceAllString(text, "")
	return slices.Concat(commands, known(each(indented, text)), known(each(span, text)))
}

func inCode(text string) [][]string {
	return slices.Concat(known(each(comment, text)), each(helpLine, text), each(quoted, text))
}

func known(commands [][]string) [][]string {
	return slices.DeleteFunc(commands, func(args []string) bool { return !knownTool.MatchString(args[0]) })
}

// each returns the commands in the first group of each match.
func each(pattern *regexp.Regexp, text string) (commands [][]string) {
	for _, match := range pattern.FindAllStringSubmatch(text, -1) {
		commands = append(commands, words(match[1])...)
	}
	return commands
}

// words splits a shell script into commands and their words, without quotes, comments, redirections, and variables before a command.
func words(text string) (commands [][]string) {
	var args []string
	redirected := false
	for _, token := range shellToken.FindAllString(text+"\n", -1) {
		switch {
		case token[0] == '#':
		case token[0] == '<' || token[0] == '>':
			redirected = true
		case strings.ContainsRune("\n;&|()", rune(token[0])):
			if len(args) > 0 {
				commands = append(commands, args)
			}
			args = nil
		case redirected:
			redirected = false
		case len(args) > 0 || !prefix.MatchString(token):
			args = append(args, strings.NewReplacer(`'`, "", `"`, "").Replace(token))
		}
	}
	return commands
}
