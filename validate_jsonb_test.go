package clerkinvite

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/clerkinvite/clerkinvite/internal/pgtest"
)

// PostgreSQL itself says how long a value is.
func TestJSONBSize(t *testing.T) {
	t.Parallel()
	values := []string{
		`null`, `true`, ` false `, `{}`, `[]`, `[ ]`, `[[],{}]`, `[1,2,3]`, `{"a":1,"b":[true,null]}`, "{\n\t\"a\" :\r\n1}", `""`, `"a,b:c"`, `"\"\\\/\b\f\n\r\t"`,
		`"\u0001\u001f\u007f\u00e9\u20ac"`, `"\ud83d\ude00"`, `"é€😀"`, `"\u0022\u005c\u000a"`, `"\\"`, `"\\\\\""`, `["\\",","]`, "\"\u2028\u202e\x7f\"",
	}
	for _, mantissa := range []string{"0", "-0", "1", "-1", "10", "100", "0.0", "0.5", "0.050", "-0.001", "1.50", "12.345", "123456789012345678901234567890", "9.999"} {
		for _, exponent := range []string{"", "e0", "e1", "E2", "e+3", "e-1", "e-2", "e-3", "e10", "e-30", "e300", "e-999"} {
			values = append(values, mantissa+exponent)
		}
	}
	random := rand.New(rand.NewPCG(1, 2))
	for range 300 {
		values = append(values, randomJSON(random, 4))
	}
	var sizes []int
	pool := pgtest.New(t).Pool(t)
	require.NoError(t, pool.QueryRow(t.Context(), "SELECT array_agg(octet_length(v::jsonb::text) ORDER BY n) FROM unnest($1::text[]) WITH ORDINALITY AS x(v, n)", values).Scan(&sizes))
	for i, v := range values {
		require.True(t, json.Valid([]byte(v)), v)
		require.Equal(t, sizes[i], jsonbSize([]byte(v)), v)
	}
	require.Equal(t, len(`{"a": 1, "a": 2}`), jsonbSize([]byte(`{"a":1,"a":2}`)), "an upper bound")
}

// randomJSON returns a value without equal keys.
func randomJSON(r *rand.Rand, depth int) string {
	kinds := 8
	if depth == 0 {
		kinds = 5
	}
	switch r.IntN(kinds) {
	case 0:
		return "null"
	case 1:
		return fmt.Sprintf("%d.%03de%d", r.IntN(3)*r.IntN(1e6), r.IntN(1000), r.IntN(100)-50)
	case 2:
		return fmt.Sprint(r.IntN(2e6) - 1e6)
	case 3, 4:
		b, _ := json.Marshal(strings.Repeat(string(rune(1+r.IntN(300)))+`"\`, r.IntN(4)))
		return string(b)
	case 5, 6:
		var list []string
		for range r.IntN(5) {
			list = append(list, randomJSON(r, depth-1))
		}
		return "[" + strings.Join(list, " , ") + "]"
	default:
		var list []string
		for i := range r.IntN(5) {
			list = append(list, fmt.Sprintf("\"k%d\":%s", i, randomJSON(r, depth-1)))
		}
		return "{" + strings.Join(list, ",") + "}"
	}
}
