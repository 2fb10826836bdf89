package routers

import (
	"net/http"

	"github.com/labstack/echo/v5"

	"github.com/clerkinvite/clerkinvite"
)

// begin snippet

// echoRoutes returns the endpoints on echo. Handlers return the library's errors as they
// are, and one place answers them. The library gets the request's context: echo uses the
// *echo.Context again for the next request.
func echoRoutes(svc *clerkinvite.Service, verifier *clerkinvite.WebhookVerifier) http.Handler {
	router := echo.New()
	answerUnknown := router.HTTPErrorHandler // for echo's own errors, as of a path that is not there
	router.HTTPErrorHandler = func(c *echo.Context, err error) {
		if echo.StatusCode(err) != 0 {
			answerUnknown(c, err)
			return
		}
		status, body := failure(c.Request().Context(), c.Response().Header(), err)
		_ = c.JSON(status, body)
	}
	router.Any("/webhooks/clerk", echo.WrapHandler(svc.WebhookHandler(verifier))) // not behind the guard: the signature is its proof
	tenant := router.Group("/tenants/:tenant/invitations", func(next echo.HandlerFunc) echo.HandlerFunc {
		return func(c *echo.Context) error {
			if !isAdmin(c.Request(), c.Param("tenant")) {
				return errNoAdmin
			}
			return next(c)
		}
	})
	tenant.POST("", func(c *echo.Context) error {
		var body invitation
		if err := echo.BindBody(c, &body); err != nil { // Bind would look into the path and the query as well
			return unreadable(err)
		}
		member, err := svc.Invite(c.Request().Context(), body.params(c.Param("tenant")))
		if err != nil {
			return err
		}
		return c.JSON(http.StatusCreated, member)
	})
	tenant.GET("", func(c *echo.Context) error {
		list, err := svc.List(c.Request().Context(), listParams(c.Param("tenant"), c.Request()))
		if err != nil {
			return err
		}
		return c.JSON(http.StatusOK, page{list.Members, list.Next})
	})
	return http.MaxBytesHandler(router, maxBody)
}

// end snippet
