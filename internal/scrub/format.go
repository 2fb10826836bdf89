package scrub

import (
	"fmt"
	"hash/maphash"
	"io"
	"log/slog"
	"reflect"
	"strings"
)

// seed is random, so a hash does not reveal what was hashed.
var seed = maphash.MakeSeed()

// Format is the body of the Format methods of structs with personal data. %+v and %#v
// print all fields. Every other verb prints the log value, and a hash of all fields, so
// that two different values print two different texts in a failed test.
func Format(f fmt.State, verb rune, v slog.LogValuer) {
	typ, all := reflect.TypeOf(v), fields(reflect.ValueOf(v))
	if verb == 'v' && (f.Flag('+') || f.Flag('#')) {
		_, _ = io.WriteString(f, typ.String()+"{"+all+"}")
		return
	}
	_, _ = fmt.Fprintf(f, "%s%v#%08x", typ.Name(), v.LogValue(), uint32(maphash.String(seed, all)))
}

// fields returns the exported fields that are not zero, with pointers followed and JSON as text.
func fields(v reflect.Value) string {
	var all []string
	for i := range v.NumField() {
		field := v.Field(i)
		if !field.CanInterface() || field.IsZero() {
			continue
		}
		if field.Kind() == reflect.Pointer {
			field = field.Elem()
		}
		format := "%s:%+v"
		switch {
		case field.Kind() == reflect.String:
			format = "%s:%q"
		case field.Kind() == reflect.Slice && field.Type().Elem().Kind() == reflect.Uint8:
			format = "%s:%s"
		}
		all = append(all, fmt.Sprintf(format, v.Type().Field(i).Name, field.Interface()))
	}
	return strings.Join(all, " ")
}
