package routers

import (
	"net/http"

	"github.com/labstack/echo/v5"

	"github.com/clerkinvite/clerkinvite"
)

// echoRoutes returns the endpoints on echo. Handlers return the library's errors unchanged, and
// HTTPErrorHandler turns them into responses. The library gets the request's context, because echo
// reuses the *echo.Context for the next request. If isAdmin uses cookies, wrap the returned handler
// in http.NewCrossOriginProtection().Handler.
func echoRoutes(svc *clerkinvite.Service, verifier *clerkinvite.WebhookVerifier) http.Handler {
	tenant := func(c *echo.Context) string { return unescaped(c.Request(), c.Param("tenant")) }
	router := echo.New()
	answerUnknown := router.HTTPErrorHandler // for echo's own errors, such as an unknown path
	router.HTTPErrorHandler = func(c *echo.Context, err error) {
		if echo.StatusCode(err) != 0 {
			answerUnknown(c, err)
			return
		}
		status, body := failure(c.Request().Context(), c.Response().Header(), err)
		_ = c.JSON(status, body)
	}
	router.Any("/webhooks/clerk", echo.WrapHandler(svc.WebhookHandler(verifier))) // not behind the guard: the signature is its proof
	invitations := router.Group("/tenants/:tenant/invitations", func(next echo.HandlerFunc) echo.HandlerFunc {
		return func(c *echo.Context) error {
			if !isAdmin(c.Request(), tenant(c)) {
				return errNoAdmin
			}
			return next(c)
		}
	})
	invitations.POST("", func(c *echo.Context) error {
		body, err := readInvitation(c.Request()) // Bind would also read the path and the query
		if err != nil {
			return err
		}
		member, err := svc.Invite(c.Request().Context(), body.params(tenant(c)))
		if err != nil {
			return err
		}
		return c.JSON(http.StatusCreated, member)
	})
	invitations.GET("", func(c *echo.Context) error {
		list, err := svc.List(c.Request().Context(), listParams(tenant(c), c.Request()))
		if err != nil {
			return err
		}
		return c.JSON(http.StatusOK, list)
	})
	return http.MaxBytesHandler(router, maxBody)
}
