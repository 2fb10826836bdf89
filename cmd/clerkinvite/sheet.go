package main

import (
	"bytes"
	"cmp"
	"context"
	"encoding/binary"
	"encoding/csv"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"unicode/utf16"
	"unicode/utf8"

	"github.com/clerkinvite/clerkinvite"
)

// sheet is a file of comma-separated values with a header row. Semicolons and tabs may separate the values, too.
type sheet struct {
	header  []string
	columns map[string]int // the places of our columns in the header
	reason  int            // the place of the reasons of an earlier import, or -1
	ignored []string       // the names of the other columns
	records []*record

	defaults map[string]string // by column, for lines without a value

	separator rune
	crlf      bool
}

// record is a line of a file; with line breaks in its values, it is several lines.
type record struct {
	number int // of its first line in the file
	fields []string
	whole  bool   // it has as many fields as the header
	fault  string // why it cannot be read, or ""
}

// sheetOptions are the flags of commands that read a file, and the columns that they know.
type sheetOptions struct {
	columns   []string
	tenant    string
	org       clerkinvite.Organization // its ID and role
	mapping   map[string]string        // our columns, and the names in the file
	separator rune                     // 0 if it must be detected
	dryRun    bool
	errors    string // the name of the file for lines that failed
}

// separators are the values of --separator.
var separators = []struct {
	name string
	char rune
}{{"comma", ','}, {"semicolon", ';'}, {"tab", '\t'}}

// define defines the flags.
func (o *sheetOptions) define(flags *flag.FlagSet) {
	flags.StringVar(&o.tenant, "tenant", "", "the `tenant` of lines without one")
	flags.StringVar(&o.org.ID, "organization", "", "the Clerk `organization` (org_…) of lines without one")
	flags.StringVar(&o.org.Role, "organization-role", "", "the `role` in the organization of lines without one; org:member if it is not set")
	flags.Func("map", "read a column that has another name in the file, such as `email=\"Work email\"`; ignore columns with unknown names", o.setMapping)
	flags.Func("separator", "the separator of the values: `comma`, semicolon or tab; by default, it is detected in the header", func(s string) error {
		for _, known := range separators {
			if s == known.name || s == string(known.char) {
				o.separator = known.char
				return nil
			}
		}
		return errors.New("must be comma, semicolon or tab")
	})
	flags.BoolVar(&o.dryRun, "dry-run", false, "report only; write nothing and do not call Clerk")
	flags.StringVar(&o.errors, "errors", "", "write lines that failed or were not reached to this CSV `file`, with the reason; ignored in a dry run")
}

// defaults returns the values that flags set, by column.
func (o *sheetOptions) defaults() map[string]string {
	return map[string]string{
		"tenant": strings.TrimSpace(o.tenant), "organization": strings.TrimSpace(o.org.ID), "organization_role": strings.TrimSpace(o.org.Role),
	}
}

// openSheet reads a file, or standard input if its name is "-".
func (t *tool) openSheet(ctx context.Context, o sheetOptions, name string) (*sheet, error) {
	if err := t.checkErrorsFile(o, name); err != nil {
		return nil, usagef("--errors: %w; nothing was sent", err)
	}
	raw, err := t.readFile(ctx, name)
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	var s *sheet
	if err == nil {
		s, err = readSheet(raw, o)
	}
	if err != nil {
		return nil, usagef("%s: %w; nothing was sent", name, err)
	}
	return s, nil
}

// readFile reads the file. Reading from a pipe cannot be interrupted, so if ctx ends, the read continues until the process ends.
func (t *tool) readFile(ctx context.Context, name string) ([]byte, error) {
	type content struct {
		raw []byte
		err error
	}
	done := make(chan content, 1)
	go func() {
		var c content
		if name == "-" {
			c.raw, c.err = io.ReadAll(t.stdin)
		} else {
			c.raw, c.err = os.ReadFile(name)
		}
		done <- c
	}()
	select {
	case <-ctx.Done():
		return nil, ctx.Err()
	case c := <-done:
		return c.raw, c.err
	}
}

const byteOrderMark = "\ufeff"

// toUTF8 decodes a file in UTF-8, or in UTF-16 with a byte order mark. Invalid text stays invalid, because each value is checked
// later.
func toUTF8(raw []byte) []byte {
	var order binary.ByteOrder
	switch {
	case bytes.HasPrefix(raw, []byte("\xff\xfe")):
		order = binary.LittleEndian
	case bytes.HasPrefix(raw, []byte("\xfe\xff")):
		order = binary.BigEndian
	default:
		return bytes.TrimPrefix(raw, []byte(byteOrderMark))
	}
	const notUTF8 = 0xff
	text := make([]byte, 0, len(raw))
	for raw = raw[2:]; len(raw) >= 2; raw = raw[2:] {
		r := rune(order.Uint16(raw))
		if utf16.IsSurrogate(r) {
			if len(raw) >= 4 {
				r = utf16.DecodeRune(r, rune(order.Uint16(raw[2:])))
			}
			if r == utf8.RuneError || utf16.IsSurrogate(r) {
				text = append(text, notUTF8)
				continue
			}
			raw = raw[2:]
		}
		text = utf8.AppendRune(text, r)
	}
	if len(raw) > 0 {
		text = append(text, notUTF8)
	}
	return text
}

// detectSeparator returns the most frequent separator of the header.
func detectSeparator(text []byte) rune {
	counts := make(map[rune]int, len(separators))
	inQuotes := false
	for _, c := range text {
		if c == '"' {
			inQuotes = !inQuotes
		}
		if inQuotes {
			continue
		}
		if c == '\n' {
			break
		}
		counts[rune(c)]++
	}
	best := separators[0].char
	for _, known := range separators {
		if counts[known.char] > counts[best] {
			best = known.char
		}
	}
	return best
}

// readSheet reads the text of a file. Unmatched quotes are an error for the whole file, because line boundaries would be guesses.
func readSheet(raw []byte, o sheetOptions) (*sheet, error) {
	text := toUTF8(raw)
	first, _, _ := bytes.Cut(text, []byte("\n"))
	s := &sheet{separator: o.separator, crlf: bytes.HasSuffix(first, []byte("\r"))}
	if s.separator == 0 {
		s.separator = detectSeparator(text)
	}
	r := csv.NewReader(bytes.NewReader(text))
	r.Comma = s.separator
	r.FieldsPerRecord = -1
	header, err := r.Read()
	if errors.Is(err, io.EOF) {
		return nil, errors.New("the file is empty; its first row must name the columns, such as tenant,email,role")
	}
	if err != nil {
		return nil, err
	}
	if err := s.assign(withoutEmptyEnd(header, 0), o); err != nil {
		return nil, err
	}
	for {
		fields, err := r.Read()
		if errors.Is(err, io.EOF) {
			return s, nil
		}
		if err != nil {
			return nil, err
		}
		number, _ := r.FieldPos(0)
		if name := s.swallowing(fields); name != "" {
			return nil, fmt.Errorf("line %d: %s contains line breaks, perhaps other lines between two stray quotes", number, name)
		}
		if len(withoutEmptyEnd(fields, 0)) > 0 { // not an empty row of a spreadsheet
			s.records = append(s.records, s.newRecord(number, fields))
		}
	}
}

// withoutEmptyEnd removes empty fields after the first keep ones. Spreadsheets add them, because in a table all rows are equally long.
func withoutEmptyEnd(fields []string, keep int) []string {
	for len(fields) > keep && strings.TrimSpace(fields[len(fields)-1]) == "" {
		fields = fields[:len(fields)-1]
	}
	return fields
}

// swallowing returns the name of a field that may contain other lines of the file. Of the columns that are read, only JSON has line
// breaks. An ignored column may have them, unless there is an address: no line can be imported without one.
func (s *sheet) swallowing(fields []string) string {
	for i, value := range fields {
		if !strings.ContainsAny(value, "\r\n") {
			continue
		}
		if i >= len(s.header) {
			return "a field"
		}
		switch name := s.nameAt(i); {
		case (name == "data" || name == "public_metadata") && json.Valid([]byte(value)):
		case name == "" && !strings.Contains(value, "@"):
		case name == "":
			return short(s.header[i])
		default:
			return name
		}
	}
	return ""
}

// nameAt returns our name of a column, or "" for an ignored one.
func (s *sheet) nameAt(place int) string {
	if place == s.reason {
		return reasonColumn
	}
	for name, at := range s.columns {
		if at == place {
			return name
		}
	}
	return ""
}

// get returns a value without white space around it, or "" without the column.
func (s *sheet) get(r *record, column string) string {
	if at, ok := s.columns[column]; ok {
		return strings.TrimSpace(r.fields[at])
	}
	return ""
}

// getOrDefault returns a value, or its default if the line has none.
func (s *sheet) getOrDefault(r *record, column string) string {
	return cmp.Or(s.get(r, column), s.defaults[column])
}

// writtenReason finds a reason that writeErrors wrote.
var writtenReason = regexp.MustCompile(`^line [0-9]+: `)

// newRecord returns a line. A line with a wrong number of fields must stay wrong. But writeErrors may have added a reason, which is
// then in the wrong column, and a spreadsheet may have made all rows equally long.
func (s *sheet) newRecord(number int, fields []string) *record {
	r := &record{number: number, fields: withoutEmptyEnd(fields, len(s.header))}
	written := slices.IndexFunc(r.fields, writtenReason.MatchString)
	if s.reason >= 0 || written >= 0 {
		for i, value := range r.fields {
			r.fields[i] = withoutQuote(value)
		}
	}
	width, last := len(s.header), len(s.header)-1
	r.whole = true
	switch {
	case written >= 0 && written != s.reason:
		r.fields, r.whole = r.fields[:written], s.reason < 0
	case s.reason == last && len(r.fields) == last: // Excel omits empty fields at the end of some lines
		r.fields = append(r.fields, "")
	}
	if r.whole = r.whole && len(r.fields) == width; !r.whole {
		if s.reason >= 0 {
			width--
		}
		r.fault = fmt.Sprintf("has %d fields, the header has %d", len(r.fields), width)
		return r
	}
	for name, at := range s.columns {
		if !utf8.ValidString(r.fields[at]) {
			r.fault = name + " is not valid Unicode; export the file as CSV UTF-8"
		}
	}
	return r
}

// quoted matches text that a spreadsheet treats as a formula, and such text after one or more quotes.
var formula, quoted = regexp.MustCompile(`^'*[=+@\t\r-]`), regexp.MustCompile(`^'+[=+@\t\r-]`)

// withQuote returns a value that no spreadsheet treats as a formula. withoutQuote reverses it.
func withQuote(s string) string {
	if formula.MatchString(s) {
		return "'" + s
	}
	return s
}

func withoutQuote(s string) string {
	if quoted.MatchString(s) {
		return s[1:]
	}
	return s
}

// checkErrorsFile returns an error if the file for --errors cannot be written, is not a regular file, or is the imported file, which
// would lose its other lines.
func (t *tool) checkErrorsFile(o sheetOptions, input string) error {
	name := o.errors
	if name == "" {
		return nil
	}
	if target, err := os.Stat(name); err == nil {
		source, err := os.Stat(input)
		if f, ok := t.stdin.(*os.File); ok && input == "-" {
			source, err = f.Stat()
		}
		if err == nil && os.SameFile(target, source) {
			return fmt.Errorf("%s is the imported file, which would lose its other lines; choose another one", name)
		}
	}
	target, err := os.Lstat(name)
	if err == nil && !target.Mode().IsRegular() {
		return fmt.Errorf("%s must be a regular file or not exist", name)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if o.dryRun {
		return nil
	}
	f, err := os.CreateTemp(filepath.Dir(name), ".clerkinvite-*") // as writeErrors does
	if err != nil {
		return err
	}
	return errors.Join(f.Close(), os.Remove(f.Name()))
}

// writeErrors writes the lines that have a reason, with the reason as an additional column. It writes a temporary file and renames it,
// so that the file is complete or unchanged. The byte order mark is for spreadsheets, which otherwise assume another encoding.
func (s *sheet) writeErrors(name string, reasons map[*record]string) error {
	f, err := os.CreateTemp(filepath.Dir(name), ".clerkinvite-*") // readable only by its owner, because it contains addresses
	if err != nil {
		return err
	}
	_, markErr := f.WriteString(byteOrderMark)
	w := csv.NewWriter(f)
	w.Comma, w.UseCRLF = s.separator, s.crlf
	write := func(fields []string, whole bool, reason string) {
		out := make([]string, 0, len(fields)+1)
		for i, value := range fields {
			if !whole || i != s.reason {
				out = append(out, withQuote(value))
			}
		}
		_ = w.Write(append(out, reason)) // w.Error returns its error
	}
	write(s.header, true, reasonColumn)
	for _, r := range s.records {
		if reason := reasons[r]; reason != "" {
			write(r.fields, r.whole, fmt.Sprintf("line %d: %s", r.number, plain(reason)))
		}
	}
	w.Flush()
	if err := errors.Join(markErr, w.Error(), f.Sync(), f.Close()); err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	if err := os.Rename(f.Name(), name); err != nil {
		return fmt.Errorf("%w; the lines are in %s", err, f.Name())
	}
	return nil
}
