package pgtest

import "context"

// Demo starts a throw-away server for a program that is no test, an example, and returns how to connect to it. stop ends it and
// forgets all that is in it. Without PostgreSQL's programs on this machine the error is ErrNoBinaries.
func Demo(ctx context.Context) (dsn string, stop func(), err error) {
	return demo(ctx, false)
}

// Durable is Demo with PostgreSQL's default settings, on the disk of the directory for temporary files: for measurements, in which a
// commit must take as long as it does elsewhere.
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
