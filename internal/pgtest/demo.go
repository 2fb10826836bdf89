package pgtest

import "context"

// Demo starts a temporary server for an example, and returns its connection string. stop ends the server and removes its data.
// Without PostgreSQL's programs on this machine, the error is ErrNoBinaries.
func Demo(ctx context.Context) (dsn string, stop func(), err error) {
	return demo(ctx, false)
}

// Durable is Demo with PostgreSQL's default settings, on the disk of the directory for temporary files. Measurements need it, so
// that a commit takes as long as in production.
func Durable(ctx context.Context) (dsn string, stop func(), err error) {
	return demo(ctx, true)
}

func demo(ctx context.Context, durable bool) (dsn string, stop func(), err error) {
	s, err := startServer(ctx, durable)
	if err != nil {
		return "", nil, err
	}

	return s.dsn(), s.stop, nil
}
